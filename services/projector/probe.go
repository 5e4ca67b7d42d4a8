package projector

import (
	"context"
	"time"
)

// maxLag is how many messages a projector may be behind and still be ready.
const maxLag = 1000

// position is how far one stream is in the slot's file, as /readyz says it.
type position struct {
	Slot string `json:"slot"`
	// File is its path; the hash of its schema is in its name. Served: readers are given it.
	File    string `json:"file"`
	Served  bool   `json:"served"`
	Stream  string `json:"stream"`
	Applied uint64 `json:"applied"`
	Lag     uint64 `json:"lag"`
	// AgeSecs is how long ago what was applied last was stored, StillSecs how long nothing has been applied; 0 while nothing
	// is. Where there is no lag they only say that nothing happens.
	AgeSecs   float64 `json:"age_secs"`
	StillSecs float64 `json:"still_secs"`
	Error     string  `json:"error,omitempty"`
}

// readiness is how far every stream of the model is. It is ready when readers are given its file, each stream is at most
// maxLag messages behind and nothing hinders it.
func (p *projector) readiness(ctx context.Context) ([]position, bool) {
	positions := make([]position, len(streams()))
	x := p.model()
	if x == nil {
		for i, stream := range streams() {
			positions[i] = position{Slot: p.slot.Name(), Stream: stream, Error: "no file is fed yet"}
		}
		return positions, false
	}
	served := p.serving()
	ok, now := served, x.feeds[0].now(ctx)
	for i, f := range x.feeds {
		applied, lag, err := f.lag(ctx)
		if err == nil {
			err = f.hindrance()
		}
		age, still, _ := f.age(now)
		positions[i] = position{
			Slot: p.slot.Name(), File: x.writer.Path(), Served: served, Stream: f.stream, Applied: applied, Lag: lag,
			AgeSecs: seconds(age), StillSecs: seconds(still),
		}
		if err != nil {
			positions[i].Error = err.Error()
		}
		ok = ok && err == nil && lag <= maxLag
	}
	return positions, ok
}

func seconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }
