package bustest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Stress starts and stops run again and again: 10 goroutines, 50 rounds each (5 with -short), each round ended after 0
// to 20 ms. run must return nil, or the context's error, soon after its context ended, and leave no goroutine behind.
// One longer round comes first, so that durable consumers, which cost the broker goroutines, are there before anything
// is counted. Call it outside of a bubble.
func Stress(t *testing.T, run func(ctx context.Context) error) {
	t.Helper()
	rounds := 50
	if testing.Short() {
		rounds = 5
	}
	round := func(d time.Duration) {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		err := run(ctx)
		if ended := ctx.Err(); err != nil && (ended == nil || !errors.Is(err, ended)) {
			t.Errorf("run: %v", err)
		}
	}
	round(500 * time.Millisecond)
	before := goleak.IgnoreCurrent()
	var all sync.WaitGroup
	for i := range 10 {
		all.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 1))
			for range rounds {
				round(time.Duration(r.IntN(20_000)) * time.Microsecond)
			}
		})
	}
	all.Wait()
	if err := goleak.Find(before, Ignore()); err != nil {
		t.Error(err)
	}
}
