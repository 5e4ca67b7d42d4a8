package readmodel

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

const benchBatch = 5000

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

// BenchmarkApply measures decoding and applying against raw batches of the same rows with the same indexes: of-ceiling
// is the raw time over ours.
func BenchmarkApply(b *testing.B) {
	log := benchLog(b, 200)
	var ours, raw time.Duration
	n := 0
	for b.Loop() {
		started := time.Now()
		path := benchApply(b, log)
		ours += time.Since(started)
		b.StopTimer()
		raw += benchRaw(b, path)
		n++
		b.StartTimer()
	}
	b.ReportMetric(float64(n*len(log))/ours.Seconds(), "events/s")
	b.ReportMetric(raw.Seconds()/ours.Seconds(), "of-ceiling")
}

func benchApply(b *testing.B, log []Message) string {
	w, err := OpenWriter(context.Background(), b.TempDir())
	require.NoError(b, err)
	decoded := make(chan Batch, 1) // as the projector does it: one batch is decoded while another is written
	go func() {
		defer close(decoded)
		for batch := range slices.Chunk(log, benchBatch) {
			decoded <- Decode(events.StreamLog, batch)
		}
	}()
	for batch := range decoded {
		_, err := w.ApplyBatch(context.Background(), batch)
		require.NoError(b, err)
	}
	require.NoError(b, w.Close())
	return w.Path()
}

// benchRaw writes the rows of a file into another one of the same schema, each once, in the order of the log, in as
// many transactions as there were batches, and gives the time of the writes.
func benchRaw(b *testing.B, path string) time.Duration {
	from, err := sql.Open("sqlite", dsn(path, readerParams))
	require.NoError(b, err)
	defer from.Close()
	type write struct {
		rel  *relation
		rows [][]any
	}
	var writes []write

	for _, r := range []*relation{&executions, &targets, &targetTotals, &results} {
		order := "sequence"
		if r == &targetTotals {
			order = "exec_id"
		}
		found, err := queryRows(context.Background(), from, func(scan func(...any) error) ([]any, error) {
			values, into := make([]any, len(r.columns)), make([]any, len(r.columns))
			for i := range values {
				into[i] = &values[i]
			}
			return values, scan(into...)
		}, r.all()+" ORDER BY "+order)
		require.NoError(b, err)
		writes = append(writes, write{r, found})
	}
	to, err := sql.Open("sqlite", dsn(filepath.Join(b.TempDir(), "raw.db"), writerParams))
	require.NoError(b, err)
	to.SetMaxOpenConns(1)
	_, err = to.Exec(schema())
	require.NoError(b, err)
	conn, err := to.Conn(context.Background())
	require.NoError(b, err)
	stmts := make([]*sql.Stmt, len(writes))
	for i, w := range writes {
		stmts[i], err = conn.PrepareContext(context.Background(), w.rel.sql(opInsert))
		require.NoError(b, err)
	}
	batches := len(writes[0].rows) * 305 / benchBatch
	started := time.Now()
	for n := range batches {
		_, err := conn.ExecContext(context.Background(), "BEGIN IMMEDIATE")
		require.NoError(b, err)
		for i, w := range writes {
			for _, row := range w.rows[len(w.rows)*n/batches : len(w.rows)*(n+1)/batches] {
				if _, err := stmts[i].Exec(row...); err != nil {
					b.Fatal(err)
				}
			}
		}
		_, err = conn.ExecContext(context.Background(), "COMMIT")
		require.NoError(b, err)
	}
	require.NoError(b, conn.Close())
	require.NoError(b, to.Close())
	return time.Since(started)
}
