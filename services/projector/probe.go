package projector

import "context"

// maxLag is how many messages a projector may be behind and still be ready.
const maxLag = 1000

// position is how far one stream is, as /readyz says it.
type position struct {
	Stream  string `json:"stream"`
	Applied uint64 `json:"applied"`
	Lag     uint64 `json:"lag"`
	Error   string `json:"error,omitempty"`
}

// readiness is how far every stream is. It is ready when each is at most maxLag messages behind and nothing hinders it; it
// is not while no file is fed yet.
func readiness(ctx context.Context, feeds []*feed) ([]position, bool) {
	ok := len(feeds) > 0
	positions := make([]position, len(streams()))
	for i, stream := range streams() {
		positions[i] = position{Stream: stream, Error: "no file is fed yet"}
	}
	for i, f := range feeds {
		applied, lag, err := f.lag(ctx)
		if err == nil {
			err = f.hindrance()
		}
		positions[i] = position{Stream: f.stream, Applied: applied, Lag: lag}
		if err != nil {
			positions[i].Error = err.Error()
		}
		ok = ok && err == nil && lag <= maxLag
	}
	return positions, ok
}
