package projector

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/broker"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/readmodel"
)

const (
	benchExecs = 1000
	benchPCs   = 100
	benchBatch = 5000
)

// BenchmarkProject measures events per second from the broker to committed rows, over execs of 100 endpoints each from
// request to close, against raw batches: the rows that came of it, each once, in as many transactions, into a file of
// the same schema and parameters, both under the program's GCPercent. of-ceiling is the raw time over ours. The broker is a
// process of its own, as where it is deployed: its garbage is not for our collector.
func BenchmarkProject(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(GCPercent))
	connection := benchConnection(b, brokerProcess(b))
	last := benchFill(b, connection, 0, benchExecs)
	var ours, raw time.Duration
	n := 0
	for b.Loop() {
		dir := b.TempDir()
		started := time.Now()
		benchProject(b, connection, Config{ReadModelDir: dir, SnapshotEvery: -1}, last)
		ours += time.Since(started)
		b.StopTimer()
		raw += benchRaw(b, dir, int(last)/benchBatch)
		n++
		b.StartTimer()
	}
	b.ReportMetric(float64(n)*float64(last)/ours.Seconds(), "events/s")
	b.ReportMetric(raw.Seconds()/ours.Seconds(), "of-ceiling")
}

// BenchmarkStart measures how long a projector without a file takes until it has all of the log: with the newest snapshot,
// behind which a thirtieth of the log lies, and with the log alone.
func BenchmarkStart(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(GCPercent))
	connection := benchConnection(b, benchBroker(b))
	const behind = benchExecs / 30
	most := benchFill(b, connection, 0, benchExecs-behind)
	p := &projector{config: Config{ReadModelDir: b.TempDir(), SnapshotEvery: time.Hour}, bus: connection, logger: slog.New(slog.DiscardHandler)}
	benchProject(b, connection, Config{ReadModelDir: p.config.ReadModelDir, SnapshotEvery: -1}, most)
	var err error
	p.slot, err = readmodel.ClaimSlot(p.config.ReadModelDir, events.Retain{})
	require.NoError(b, err)
	defer func() { require.NoError(b, p.slot.Close()) }()
	w, _, err := p.slot.Continue(b.Context())
	require.NoError(b, err)
	defer func() { require.NoError(b, w.Close()) }()
	began := time.Now()
	require.NoError(b, p.snapshot(b.Context(), &model{writer: w}))
	took := time.Since(began)
	stored, err := connection.Objects(b.Context(), events.StoreReadModel)
	require.NoError(b, err)
	require.Len(b, stored, 1)
	last := benchFill(b, connection, benchExecs-behind, benchExecs)
	for _, way := range []struct {
		name   string
		config Config
	}{{"snapshot", Config{SnapshotEvery: -1}}, {"log", Config{SnapshotEvery: -1, Rebuild: true}}} {
		b.Run(way.name, func(b *testing.B) {
			for b.Loop() {
				way.config.ReadModelDir = b.TempDir()
				benchProject(b, connection, way.config, last)
			}
			b.ReportMetric(float64(took.Milliseconds()), "snapshot-ms")
			b.ReportMetric(float64(stored[0].Size)/(1<<20), "snapshot-MB")
		})
	}
}

// benchBroker listens: over the loopback bulk moves faster than over an in-process pipe.
func benchBroker(b *testing.B) string {
	server, err := broker.Start(broker.Config{StoreDir: b.TempDir(), Listen: "127.0.0.1:0", Token: bustest.Token, Logger: bustest.Logger(b)})
	require.NoError(b, err)
	b.Cleanup(server.Shutdown)
	return server.URL()
}

// benchFill puts the execs from one to another, of benchPCs endpoints each, into the log, from request to close, and gives
// its end.
func benchFill(b *testing.B, connection *bus.Bus, from, to int) (last uint64) {
	random := rand.New(rand.NewPCG(1, 1))
	var log []*nats.Msg
	add := func(p events.Payload) {
		e := event(b, p, "")
		h, body, err := e.Encode()
		require.NoError(b, err)
		log = append(log, &nats.Msg{Subject: e.NATSSubject(), Header: nats.Header(h), Data: body})
	}
	for n := from; n < to; n++ {
		exec := uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, n)).String()
		plan := events.ExecPlanned{ExecID: exec, Waves: make([]events.PlannedWave, 1)}
		for pc := range benchPCs {
			plan.Waves[0].Expected = append(plan.Waves[0].Expected, fmt.Sprintf("pc-%02d", pc))
		}
		add(requested(exec))
		add(plan)
		add(events.WaveReleased{ExecID: exec})
		add(events.WaveDispatched{ExecID: exec, Commands: benchPCs})
		for _, pc := range random.Perm(benchPCs) {
			request := events.DeriveID(exec, "request", fmt.Sprint(pc))
			r := events.Run{PCID: fmt.Sprintf("pc-%02d", pc), ExecID: exec, RequestID: request, ResultID: events.ResultID(request, fmt.Sprint(pc)), JobID: "hello", Version: "1"}
			zero, at := 0, time.Now().UTC()
			add(events.RunReceived{Run: r, ReceivedAt: at})
			add(events.RunStarted{Run: r, StartedAt: at})
			add(events.RunFinished{Run: r, StartedAt: at, FinishedAt: at, State: events.StateSucceeded, ExitCode: &zero, Stdout: events.Output{Text: "hello\n", Bytes: 6}})
		}
		add(events.ExecClosed{ExecID: exec, Outcome: events.OutcomeSucceeded})
		require.NoError(b, connection.PublishAll(b.Context(), log, 0))
		log = log[:0]
	}
	last, err := connection.LastSeq(b.Context(), events.StreamLog)
	require.NoError(b, err)
	return last
}

func benchProject(b *testing.B, connection *bus.Bus, c Config, last uint64) {
	stop := benchRun(b, connection, c)
	r, err := readmodel.OpenReader(c.ReadModelDir)
	require.NoError(b, err)
	require.NoError(b, r.WaitFor(b.Context(), last))
	require.NoError(b, r.Close())
	stop()
}

// benchRun runs a projector until it is told to stop.
func benchRun(b *testing.B, connection *bus.Bus, c Config) (stop func()) {
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	logger := slog.New(slog.NewTextHandler(io.Discard, nil))
	go func() {
		c.MaxBatch = benchBatch
		ended <- Run(ctx, c, Deps{Bus: connection, Logger: logger})
	}()
	return func() {
		cancel()
		require.NoError(b, <-ended)
	}
}

// benchRaw copies a read model's rows, in the order of the log, and gives the time of the writes. What it writes next it
// has read before the time runs.
func benchRaw(b *testing.B, dir string, batches int) (writes time.Duration) {
	path, err := filepath.Glob(filepath.Join(dir, "slot-0", "*.db"))
	require.NoError(b, err)
	from, err := sql.Open("sqlite", "file:"+path[0]+"?mode=ro")
	require.NoError(b, err)
	defer from.Close()
	to, err := sql.Open("sqlite", "file:"+filepath.Join(b.TempDir(), "raw.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)"+
		"&_pragma=wal_autocheckpoint(10000)&_pragma=cache_size(-65536)&_pragma=temp_store(MEMORY)")
	require.NoError(b, err)
	to.SetMaxOpenConns(1)
	for _, text := range column[string](b, from, "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'result\\_words%' ESCAPE '\\'") {
		_, err := to.Exec(text)
		require.NoError(b, err)
	}
	var tables []*rawTable
	for table, order := range map[string]string{
		"executions": "sequence", "targets": "sequence", "results": "sequence", "audit": "sequence", "waves": "exec_id", "target_totals": "exec_id",
	} {
		t := openRaw(b, from, table, order)
		defer t.rows.Close()
		tables = append(tables, t)
	}
	for n := range batches {
		for _, t := range tables {
			t.read(b, t.count*(n+1)/batches-t.count*n/batches)
		}
		started := time.Now()
		tx, err := to.Begin()
		require.NoError(b, err)
		for _, t := range tables {
			stmt, err := tx.Prepare(t.insert)
			require.NoError(b, err)
			for _, row := range t.next {
				if _, err := stmt.Exec(row...); err != nil {
					b.Fatal(err)
				}
			}
		}
		require.NoError(b, tx.Commit())
		writes += time.Since(started)
	}
	started := time.Now()
	require.NoError(b, to.Close())
	return writes + time.Since(started)
}

// rawTable is a table that benchRaw copies.
type rawTable struct {
	insert string
	count  int
	rows   *sql.Rows
	next   [][]any
}

func openRaw(b *testing.B, from *sql.DB, table, order string) *rawTable {
	rows, err := from.Query("SELECT * FROM " + table + " ORDER BY " + order)
	require.NoError(b, err)
	columns, err := rows.Columns()
	require.NoError(b, errors.Join(err, rows.Err()))
	return &rawTable{
		insert: "INSERT INTO " + table + " VALUES (?" + strings.Repeat(", ?", len(columns)-1) + ")",
		count:  column[int](b, from, "SELECT COUNT(*) FROM "+table)[0], rows: rows,
	}
}

// read takes the next n rows.
func (t *rawTable) read(b *testing.B, n int) {
	t.next = t.next[:0]
	columns, err := t.rows.Columns()
	require.NoError(b, err)
	for range n {
		require.True(b, t.rows.Next())
		values, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		require.NoError(b, t.rows.Scan(into...))
		t.next = append(t.next, values)
	}
}

// column is the one column of a query.
func column[T any](b *testing.B, db *sql.DB, text string) (all []T) {
	rows, err := db.Query(text)
	require.NoError(b, err)
	defer rows.Close()
	for rows.Next() {
		var v T
		require.NoError(b, rows.Scan(&v))
		all = append(all, v)
	}
	require.NoError(b, rows.Err())
	return all
}
