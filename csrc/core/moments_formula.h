// From power sums to moments, for a Real that is a double or a vector of doubles. No include guard: included into the
// namespace that has Real and the functions of it below (core/moments.h; the CPU's kernels, where a template would be
// compiled for the oldest processor).
//   product, positive_part, nan_unless_positive, root, reciprocal

// What the requested statistics are made of, in the order of Statistic.
struct Moments {
    Real mean, std, variance, skewness, kurtosis, energy;
};

// Population moments; skewness and kurtosis as scipy.stats' biased, Fisher ones, NaN where the variance is 0. From the
// sums of d, d^2, d^3 and d^4.
T3_HD Moments moments_of(Real s1, Real s2, Real s3, Real s4, Real origin, double inverse_count) {
    const Real share = Real{} + inverse_count;
    const Real m = product(s1, share), e2 = product(s2, share), e3 = product(s3, share), e4 = product(s4, share);
    const Real mm = product(m, m), difference = e2 - mm;
    const Real m2 = positive_part(difference), thrice = product(m2, Real{} + 3.0);
    const Real m3 = e3 - product(m, thrice + mm);
    const Real m4 = e4 - product(m, product(m3, Real{} + 4.0) + product(m, thrice + thrice + mm));
    const Real std = root(m2), inverse = nan_unless_positive(difference, reciprocal(m2));
    const Real mean = origin + m;
    return {mean, std, m2, product(product(m3, inverse), product(std, inverse)),
            product(product(m4, inverse), inverse) - 3.0, m2 + product(mean, mean)};
}
