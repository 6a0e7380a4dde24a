// Numbers of the statistics, shared with Python (t3ssfast.kernels._native.STATISTICS).
#pragma once

namespace t3ssfast {

enum class Statistic : int {
    mean = 0,
    std = 1,
    variance = 2,
    skewness = 3,
    kurtosis = 4,
    energy = 5,
    min = 6,
    max = 7,
    range = 8,
    median = 9,
    quantile = 10
};

struct StatisticRequest {
    Statistic kind;
    double fraction;  // quantile, 0 to 1; 0.5 for the median; otherwise unused
};

}  // namespace t3ssfast
