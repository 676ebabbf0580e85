package rig

import (
	"slices"
	"testing"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	for want, values := range map[float64][]float64{
		0:   nil,
		7:   {7},
		2.5: {4, 1, 3, 2},
		3:   {9, 3, 1},
	} {
		before := slices.Clone(values)
		if got := Median(values); got != want || !slices.Equal(values, before) {
			t.Errorf("%v: %v, want %v; it was %v", values, got, want, before)
		}
	}
	if got := Median([]int{10, 1, 4, 20}); got != 7 {
		t.Errorf("%d", got)
	}
}
