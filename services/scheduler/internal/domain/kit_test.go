package domain_test

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/services/scheduler/internal/domain"
)

var retain = events.DefaultLimits().Kept()

var start = time.Date(2026, 3, 28, 0, 0, 0, 0, time.UTC)

type tester interface {
	require.TestingT
	Helper()
}

// history applies facts to a state, one a second.
type history struct {
	t     tester
	state *domain.State
	seq   uint64
	now   time.Time
	open  int // runs that are said to be open when ticks are ended
}

func newHistory(t tester) *history { return &history{t: t, state: domain.New(retain), now: start} }

func (h *history) add(facts ...events.Payload) {
	h.t.Helper()
	for _, p := range facts {
		h.seq++
		h.now = h.now.Add(time.Second)
		e, err := events.New(p, events.Meta{ID: fmt.Sprint(h.seq), Time: h.now})
		require.NoError(h.t, err)
		require.NoError(h.t, h.state.Apply(e, h.seq, h.now))
	}
}

// reload saves the state and loads it again; what is not saved (heartbeats) is taken over.
func (h *history) reload() {
	h.t.Helper()
	loaded, err := domain.Load([]byte(saved(h.t, h.state)), retain)
	require.NoError(h.t, err)
	for id, e := range h.state.Fleet {
		loaded.Fleet[id].HeardAt = e.HeardAt
	}
	h.state = loaded
}

func saved(t tester, s *domain.State) string {
	t.Helper()
	data, err := json.Marshal(s)
	require.NoError(t, err)
	return string(data)
}

func document(t tester, rest string) json.RawMessage {
	t.Helper()
	s, err := catalog.ParseSchedule([]byte("id: s\njob_id: job\ntarget: {all: true}\n"+rest), catalog.YAML)
	require.NoError(t, err)
	doc, err := s.Document()
	require.NoError(t, err)
	return doc
}

func scheduleSaved(t tester, rest string) events.ScheduleSaved {
	t.Helper()
	return events.ScheduleSaved{ID: "s", JobID: "job", Enabled: true, DocumentRevision: events.DocumentRevision{Document: document(t, rest)}}
}

func names(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("pc-%06d", i)
	}
	return ids
}
