package rest

import (
	"net/http"

	"kanade/libs/events"
	"kanade/libs/readmodel"
)

// wave is one wave of an exec as answered. Size counts its endpoints, released those that may have their command,
// dispatched those for whom it is stored.
type wave struct {
	Wave         int                 `json:"wave"`
	Label        string              `json:"label"`
	State        readmodel.WaveState `json:"state"`
	DueAt        instant             `json:"due_at"`
	After        bool                `json:"after"`
	DelaySecs    uint64              `json:"delay_secs"`
	Pause        bool                `json:"pause"`
	ReleasedAt   instant             `json:"released_at"`
	DispatchedAt instant             `json:"dispatched_at"`
	Size         int                 `json:"size"`
	Released     int                 `json:"released"`
	Dispatched   int                 `json:"dispatched"`
	Totals       totals              `json:"totals"`
	Advanced     *advance            `json:"advanced"`
}

// advance is an operator's release of a wave.
type advance struct {
	Actor    events.Actor `json:"actor"`
	Reason   string       `json:"reason"`
	At       instant      `json:"at"`
	Sequence uint64       `json:"sequence"`
}

func (s *server) listWaves(w http.ResponseWriter, r *http.Request, _ string) error {
	e, err := s.execution(r)
	if err != nil {
		return err
	}
	rows, err := s.Reader.Waves(r.Context(), e.ExecID)
	if err != nil {
		return err
	}
	answer := make([]wave, len(rows))
	for i := range rows {
		answer[i] = waveOf(&rows[i], &e)
	}
	return writeJSON(w, answer)
}

func waveOf(x *readmodel.Wave, e *readmodel.Execution) wave {
	answer := wave{
		Wave: x.Wave, Label: x.Label, State: x.State(e), DueAt: instant(x.DueAt), After: x.After, DelaySecs: x.DelaySecs, Pause: x.Pause,
		ReleasedAt: instant(x.ReleasedAt), DispatchedAt: instant(x.DispatchedAt),
		Size: x.Size, Released: x.Released, Dispatched: x.Dispatched, Totals: totals{counted(x.Totals.Expected), counted(x.Totals.Others)},
	}
	if a := x.Advance; !a.At.IsZero() {
		answer.Advanced = &advance{a.Actor, a.Reason, instant(a.At), a.Sequence}
	}
	return answer
}
