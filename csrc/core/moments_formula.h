// From power sums to moments, for a Real that is a double or a vector of doubles. No include guard: included into the
// namespace that has Real and the functions of it below (core/moments.h; the CPU's kernels, where a template would be
// compiled for the oldest processor).
//   product, positive_part, nan_unless_positive, inverse_root_guess

// Within 4e-11 of 1 / sqrt(x) by three of Newton's steps, a fraction of a float's last digit: division and root
// would take most of the time of a window's moments.
T3_HD Real inverse_root(Real x) {
    const Real half = product(x, Real{} + 0.5);
    Real y = inverse_root_guess(x);
    for (int i = 0; i < 3; ++i) y = product(y, 1.5 - product(product(half, y), y));
    return y;
}

// What the requested statistics are made of, in the order of Statistic.
struct Moments {
    Real mean, std, variance, skewness, kurtosis, energy;
};

// Population moments; skewness and kurtosis as scipy.stats' biased, Fisher ones, NaN where the variance is 0. From the
// sums of d, d^2, d^3 and d^4.
T3_HD Moments moments_of(Real s1, Real s2, Real s3, Real s4, Real origin, double inverse_count) {
    const Real share = Real{} + inverse_count;
    const Real m = product(s1, share), e2 = product(s2, share), e3 = product(s3, share), e4 = product(s4, share);
    const Real mm = product(m, m);
    const Real m2 = positive_part(e2 - mm);
    const Real m3 = e3 - product(m, product(e2, Real{} + 3.0) - product(mm, Real{} + 2.0));
    const Real m4 =
        e4 - product(m, product(e3, Real{} + 4.0) - product(m, product(e2, Real{} + 6.0) - product(mm, Real{} + 3.0)));
    const Real root = inverse_root(m2), inverse = nan_unless_positive(m2, root);
    const Real inverse2 = product(inverse, inverse);
    const Real mean = origin + m;
    return {mean, product(m2, root), m2, product(product(m3, inverse), inverse2),
            product(product(m4, inverse2), inverse2) - 3.0, m2 + product(mean, mean)};
}
