package readmodel

import (
	"context"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

// benchLog is execs of 100 endpoints each, from request to close, one after the other; an exec's endpoints answer in a
// random order.
func benchLog(b *testing.B, execs int) []Message {
	random := rand.New(rand.NewChaCha8([32]byte{}))
	j := &journal{t: b}
	for range execs {
		var id uuid.UUID
		for i := range id {
			id[i] = byte(random.Uint32())
		}
		exec := id.String()
		plan := events.ExecPlanned{ExecID: exec, Waves: make([]events.PlannedWave, 1), ExpiresAt: begin.Add(time.Hour)}
		var runs []events.Payload
		for pc := range 100 {
			r := run(exec, pc)
			plan.Waves[0].Expected = append(plan.Waves[0].Expected, r.PCID)
			runs = append(runs, events.RunReceived{Run: r, ReceivedAt: begin}, events.RunStarted{Run: r, StartedAt: begin}, finished(r, events.StateSucceeded))
		}
		random.Shuffle(100, func(a, b int) {
			for i := range 3 {
				runs[3*a+i], runs[3*b+i] = runs[3*b+i], runs[3*a+i]
			}
		})
		j.append(requested(exec, "hello"), "user:op")
		j.append(plan, "service:scheduler")
		j.append(events.WaveReleased{ExecID: exec}, "service:scheduler")
		j.append(events.WaveDispatched{ExecID: exec, Commands: 100}, "service:scheduler")
		for _, p := range runs {
			j.append(p, "agent:pc")
		}
		j.append(events.ExecClosed{ExecID: exec, Outcome: events.OutcomeSucceeded}, "service:scheduler")
	}
	return j.messages
}

// BenchmarkApply measures decoding and applying without a broker; the projector's benchmark compares with raw batches.
func BenchmarkApply(b *testing.B) { benchApply(b, false) }

// BenchmarkApplyAndWords is the same when words are written after every batch, which is not done: what that would cost.
func BenchmarkApplyAndWords(b *testing.B) { benchApply(b, true) }

func benchApply(b *testing.B, words bool) {
	log := benchLog(b, 200)
	for b.Loop() {
		w, err := OpenWriter(context.Background(), b.TempDir())
		require.NoError(b, err)
		for batch := range slices.Chunk(log, 5000) {
			_, err := w.Apply(context.Background(), events.StreamLog, batch)
			require.NoError(b, err)
			for more := words; more; {
				more, err = w.WriteWords(context.Background())
				require.NoError(b, err)
			}
		}
		require.NoError(b, w.Close())
	}
	b.ReportMetric(float64(b.N*len(log))/b.Elapsed().Seconds(), "events/s")
}
