package rig

import (
	"slices"
	"time"
)

// Quantile returns the value below which a share of the durations lies; they are sorted.
func Quantile(sorted []time.Duration, share float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))]
}

// Median is the value in the middle, or the mean of the two in the middle; 0 of none.
func Median[N int | float64](values []N) N {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	switch {
	case n == 0:
		return 0
	case n%2 == 1:
		return sorted[n/2]
	default:
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
}
