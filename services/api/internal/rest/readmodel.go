package rest

import (
	"net/http"

	"kanade/libs/readmodel"
)

// readModel is the answer of getReadModel.
type readModel struct {
	// Schema is the version of the form that this API reads: copies of another one are not listed.
	Schema string     `json:"schema"`
	Copies []copyInfo `json:"copies"`
}

type copyInfo struct {
	Slot      string  `json:"slot"`
	File      string  `json:"file"`
	Served    bool    `json:"served"`
	Asked     bool    `json:"asked"`
	Sequence  uint64  `json:"sequence"`
	AppliedAt instant `json:"applied_at"`
}

// getReadModel lists the copies of the read model that this API can reach.
func (s *server) getReadModel(w http.ResponseWriter, r *http.Request, _ string) error {
	slots, err := s.Reader.Slots(r.Context())
	if err != nil {
		return err
	}
	answer := readModel{Schema: readmodel.SchemaID(), Copies: make([]copyInfo, len(slots))}
	for i, x := range slots {
		answer.Copies[i] = copyInfo{x.Slot, x.File, x.Served, x.Asked, x.Sequence, instant(x.At)}
	}
	return writeJSON(w, answer)
}

// checkReadModel asks all projectors to check their copies, here or on other machines; what each finds is a fact of its own
// (kanade.config.checked.v1), behind the sequence that is answered.
func (s *server) checkReadModel(rebuild bool) handler {
	return func(w http.ResponseWriter, r *http.Request, route string) error {
		c, reason, err := readReason(w, r, route)
		if err != nil {
			return err
		}
		seq, err := s.journal.CheckReadModel(r.Context(), c, rebuild, reason)
		if err != nil {
			return err
		}
		written(w, seq)
		return writeJSON(w, map[string]uint64{"sequence": seq})
	}
}
