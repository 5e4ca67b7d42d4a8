package readmodel

import "context"

// turn is a lock that one has at a time and others wait for, for as long as their context lasts. Whoever has it may wait for
// SQLite; a mutex would hold the others longer than they may wait.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take waits for the turn. The error is that of ctx.
func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// give ends the turn.
func (t turn) give() { <-t }
