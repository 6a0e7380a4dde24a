// Moments from power sums, for a Real that is double or a vector of doubles. No include guard: the file is included
// into namespaces that define Real and these functions on it (core/moments.h, and the CPU kernels, where a template
// would be compiled for the baseline instruction set):
//   product, sum, difference, positive_part, nan_unless_positive, root, reciprocal

// In the order of Statistic.
struct Moments {
    Real mean, std, variance, skewness, kurtosis, energy;
};

// Population moments from the sums of d, d^2, d^3 and d^4. Skewness and kurtosis are those of scipy.stats (biased,
// Fisher), and NaN where the variance is 0.
T3_HD Moments moments_of(Real s1, Real s2, Real s3, Real s4, Real origin, double inverse_count) {
    const Real share = Real{} + inverse_count;
    const Real m = product(s1, share), e2 = product(s2, share), e3 = product(s3, share), e4 = product(s4, share);
    const Real mm = product(m, m), excess = difference(e2, mm);
    const Real m2 = positive_part(excess), thrice = product(m2, Real{} + 3.0);
    const Real m3 = difference(e3, product(m, sum(thrice, mm)));
    const Real m4 =
        difference(e4, product(m, sum(product(m3, Real{} + 4.0), product(m, sum(sum(thrice, thrice), mm)))));
    const Real std = root(m2), inverse = nan_unless_positive(excess, reciprocal(m2));
    const Real mean = sum(origin, m);
    return {mean,
            std,
            m2,
            product(product(m3, inverse), product(std, inverse)),
            difference(product(product(m4, inverse), inverse), Real{} + 3.0),
            sum(m2, product(mean, mean))};
}
