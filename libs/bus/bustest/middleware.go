package bustest

import (
	"errors"
	"math/rand/v2"
	"sync"

	"github.com/ThreeDotsLabs/watermill/message"
)

// ErrRandom is what RandomFail returns.
var ErrRandom = errors.New("random failure")

// Duplicate calls the handler twice for the share p (0..1) of messages, as if each had been delivered twice. Random by
// seed; with several workers the draw of a message depends on their order.
func Duplicate(seed uint64, p float64) message.HandlerMiddleware {
	draw := drawer(seed)
	return func(next message.HandlerFunc) message.HandlerFunc {
		return func(w *message.Message) ([]*message.Message, error) {
			if draw() < p {
				if _, err := next(w); err != nil {
					return nil, err
				}
			}
			return next(w)
		}
	}
}

// RandomFail fails for the share p of calls, half of them before the handler and half after it did its work.
func RandomFail(seed uint64, p float64) message.HandlerMiddleware {
	draw := drawer(seed)
	return func(next message.HandlerFunc) message.HandlerFunc {
		return func(w *message.Message) ([]*message.Message, error) {
			d := draw()
			if d < p/2 {
				return nil, ErrRandom
			}
			out, err := next(w)
			if err == nil && d < p {
				return nil, ErrRandom
			}
			return out, err
		}
	}
}

func drawer(seed uint64) func() float64 {
	var mu sync.Mutex
	r := rand.New(rand.NewPCG(seed, seed))
	return func() float64 {
		mu.Lock()
		defer mu.Unlock()
		return r.Float64()
	}
}
