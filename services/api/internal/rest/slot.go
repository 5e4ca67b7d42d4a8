package rest

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kanade/libs/events"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/journal"
)

// slotState is one copy of the read model that this API can reach.
type slotState struct {
	Slot string `json:"slot"`
	File string `json:"file"`
	// Served: queries may be answered from it. Asked: they are at present.
	Served          bool    `json:"served"`
	Asked           bool    `json:"asked"`
	AppliedSequence uint64  `json:"applied_sequence"`
	AppliedAt       instant `json:"applied_at"`
	// Lag is how many sequences it is behind; null while the log's end is unknown.
	Lag *uint64 `json:"lag"`
	// AgeSecs is how long ago what it shows last was stored, null while it shows nothing; StillSecs for how long this API has
	// not seen it get further. Where there is no lag they only say that nothing happens; beside a lag, that nobody feeds it.
	AgeSecs   *float64 `json:"age_secs"`
	StillSecs float64  `json:"still_secs"`
	// Damaged is what a query has met in it: another copy is asked if there is one.
	Damaged string `json:"damaged,omitempty"`
}

// slotStates are those of all copies; last is the log's end, nil while it is unknown.
func (s *server) slotStates(ctx context.Context, last *uint64) ([]slotState, error) {
	slots, err := s.Reader.Slots(ctx)
	if err != nil {
		return nil, err
	}
	now := s.now(ctx)
	states := make([]slotState, len(slots))
	for i, x := range slots {
		state := slotState{
			Slot: x.Slot, File: x.File, Served: x.Served, Asked: x.Asked, AppliedSequence: x.Sequence, AppliedAt: instant(x.At),
			StillSecs: seconds(time.Since(x.Moved)),
		}
		if last != nil {
			state.Lag = new(*last - min(*last, x.Sequence))
		}
		if x.Damaged != nil {
			state.Damaged = x.Damaged.Error()
		}
		if !x.At.IsZero() {
			state.AgeSecs = new(seconds(max(0, now.Sub(x.At))))
		}
		states[i] = state
	}
	return states, nil
}

func seconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }

// logEnd is the log's last sequence; nil while it is unknown.
func (s *server) logEnd(ctx context.Context) (*uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, journal.Timeout)
	defer cancel()
	last, err := s.Bus.LastSeq(ctx, events.StreamLog)
	if err != nil {
		return nil, err
	}
	return &last, nil
}

// slotMetrics shows the copies at every scrape: they come and go with projectors.
type slotMetrics struct {
	server                            *server
	applied, lag, age, still, damaged *prometheus.Desc
}

func newSlotMetrics(s *server) *slotMetrics {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"slot", "served"}, prometheus.Labels{"schema": readmodel.SchemaID()})
	}
	return &slotMetrics{
		server:  s,
		applied: desc("kanade_read_model_applied_sequence", "Last LOG sequence that a copy of the read model holds, as the API sees it."),
		lag:     desc("kanade_read_model_lag_messages", "Sequence numbers that the log is ahead of the copy."),
		age:     desc("kanade_read_model_age_seconds", "How long ago what the copy shows last was stored."),
		still:   desc("kanade_read_model_still_seconds", "How long the API has not seen the copy get further."),
		damaged: desc("kanade_read_model_damaged", "1 where a query of the API has met damage in the copy."),
	}
}

// Describe implements prometheus.Collector.
func (m *slotMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.applied, m.lag, m.age, m.still, m.damaged} {
		to <- d
	}
}

// Collect implements prometheus.Collector. Without a readable copy there are none; what is not known is NaN.
func (m *slotMetrics) Collect(to chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), journal.Timeout)
	defer cancel()
	var last *uint64
	if m.server.Bus.Connected() {
		last, _ = m.server.logEnd(ctx)
	}
	states, err := m.server.slotStates(ctx, last)
	if err != nil {
		return
	}
	type labels struct {
		slot   string
		served bool
	}
	shown := map[labels]bool{}
	for _, x := range states {
		key := labels{x.Slot, x.Served}
		if shown[key] { // a second file that is being built; twice the same metric would spoil the others as well
			continue
		}
		shown[key] = true
		lag, age, damaged := math.NaN(), math.NaN(), 0.0
		if x.Lag != nil {
			lag = float64(*x.Lag)
		}
		if x.AgeSecs != nil {
			age = *x.AgeSecs
		}
		if x.Damaged != "" {
			damaged = 1
		}
		for d, v := range map[*prometheus.Desc]float64{
			m.applied: float64(x.AppliedSequence), m.lag: lag, m.age: age, m.still: x.StillSecs, m.damaged: damaged,
		} {
			to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, x.Slot, strconv.FormatBool(x.Served))
		}
	}
}

// register adds them to what /metrics shows.
func (m *slotMetrics) register(reg prometheus.Registerer) error {
	if err := reg.Register(m); err != nil {
		return fmt.Errorf("register metrics of the read model: %w", err)
	}
	return nil
}
