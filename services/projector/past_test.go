package projector

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/libs/readmodel"
)

// pastFiles are the finished models of past moments.
func pastFiles(t testing.TB, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "past", "past-*.db*"))
	require.NoError(t, err)
	return files
}

func askPast(t testing.TB, b *bus.Bus, sequence uint64) {
	t.Helper()
	e := event(t, events.ReadModelPastRequested{ID: events.ReadModelID, Sequence: sequence}, "")
	e.ID = events.DeriveID(e.ID, time.Now().String())
	_, err := b.Append(t.Context(), e, bus.Any)
	require.NoError(t, err)
}

// openPast waits for a model of a past moment.
func openPast(t testing.TB, dir string, sequence uint64) (r *readmodel.Reader) {
	t.Helper()
	require.Eventually(t, func() (ok bool) {
		var err error
		r, err = readmodel.OpenPast(t.Context(), dir, sequence, time.Time{})
		return err == nil
	}, time.Minute, time.Millisecond, "the model of %d", sequence)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

func executions(t testing.TB, r *readmodel.Reader) int {
	t.Helper()
	found, _, err := r.Executions(t.Context(), readmodel.ExecutionFilter{Page: readmodel.Page{Limit: readmodel.All}})
	require.NoError(t, err)
	return len(found)
}

// A fact asks for a past moment; whichever projector of the directory is first builds it, once.
func TestPast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, dir := bustest.Connect(t, bustest.Broker(t)), t.TempDir()
		require.NoError(t, b.Conn().Publish("heartbeat.pc-01", []byte(`{"pc_id":"pc-01","at":"2026-11-23T17:40:52Z","agent_version":"1"}`)))
		for i := range 20 {
			add(t, b, requested(fmt.Sprint("e", i)))
		}
		askPast(t, b, 5) // nobody is there
		time.Sleep(recentRequest + time.Second)
		log, stop := startWith(t, b, Config{ReadModelDir: dir})
		defer func() { stop() }()
		other, stopOther := startWith(t, b, Config{ReadModelDir: dir})
		defer func() { stopOther() }()
		askPast(t, b, 7)
		askPast(t, b, 7)
		askPast(t, b, 20)
		seven := openPast(t, dir, 7)
		require.Equal(t, 7, executions(t, seven))
		require.Equal(t, 20, executions(t, openPast(t, dir, 20)))
		at, _, err := seven.Applied(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 7, at)
		_, err = seven.Agent(t.Context(), "pc-01")
		require.ErrorIs(t, err, readmodel.ErrNotFound, "who was there then is not known")
		time.Sleep(time.Minute)
		require.Len(t, pastFiles(t, dir), 2, "no journals, nothing half built, nothing for who has gone")
		left, err := filepath.Glob(filepath.Join(dir, "past", "building-*"))
		require.NoError(t, err)
		require.Empty(t, left)
		built := 0
		for _, sequence := range []string{"sequence=7", "sequence=20"} {
			for _, l := range []*said{log, other} {
				if l.contains("built the read model", sequence) {
					built++
				}
			}
		}
		require.Equal(t, 2, built, "each once")

		for i := range keptPasts + 1 { // the oldest go, and who has one open goes on
			time.Sleep(time.Second)
			askPast(t, b, uint64(8+i))
			openPast(t, dir, uint64(8+i))
		}
		time.Sleep(time.Minute)
		require.Len(t, pastFiles(t, dir), keptPasts)
		_, err = readmodel.OpenPast(t.Context(), dir, 7, time.Time{})
		require.ErrorIs(t, err, readmodel.ErrNotFound)
		require.Equal(t, 7, executions(t, seven))

		askPast(t, b, 0)
		askPast(t, b, 100_000)
		require.Eventually(t, func() bool { return log.contains("the log ends at") || other.contains("the log ends at") }, time.Minute, time.Second)
		askPast(t, b, 3)
		openPast(t, dir, 3)
	})
}

// What was built more than a day of the log ago, or is of another log, is built anew.
func TestPastIsOfThisLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, dir := bustest.Connect(t, bustest.Broker(t)), t.TempDir()
		for i := range 5 {
			add(t, b, requested(fmt.Sprint("e", i)))
		}
		log, stop := startWith(t, b, Config{ReadModelDir: dir, SnapshotEvery: -1})
		defer func() { stop() }()
		askPast(t, b, 3)
		openPast(t, dir, 3)
		before, err := os.Stat(pastFiles(t, dir)[0])
		require.NoError(t, err)
		again := func() fs.FileInfo {
			t.Helper()
			askPast(t, b, 3)
			time.Sleep(time.Minute)
			after, err := os.Stat(pastFiles(t, dir)[0])
			require.NoError(t, err)
			return after
		}
		require.True(t, os.SameFile(before, again()), "it is there")
		time.Sleep(readmodel.PastKept)
		require.False(t, os.SameFile(before, again()), "it is too old")

		past, err := readmodel.ClaimPast(t.Context(), dir, events.Retain{})
		require.NoError(t, err)
		room := past.Room()
		w, err := past.Build(t.Context(), room)
		require.NoError(t, err)
		_, err = w.Apply(t.Context(), events.StreamLog, []readmodel.Message{{Stream: events.StreamLog, Subject: "audit.x.y.z", Seq: 3, Time: time.Now(), Data: []byte("{}")}})
		require.NoError(t, err)
		require.NoError(t, past.Offer(t.Context(), w, 3, time.Now()))
		require.NoError(t, past.Close())
		require.Zero(t, executions(t, openPast(t, dir, 3)))
		again()
		require.Equal(t, 3, executions(t, openPast(t, dir, 3)))
		require.False(t, log.contains("level=ERROR"))
	})
}

// What has been forgotten since is not in a model of the past, and what was reduced since is left out: begun with a snapshot
// that still has it, or with a log that has it no more.
func TestPastForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := bustest.Connect(t, bustest.Broker(t))
		limits := bustest.Limits()
		limits.History = 24 * time.Hour
		live := func(exec string) {
			at := time.Now().UTC()
			add(t, b, requested(exec), events.ExecPlanned{ExecID: exec, Waves: []events.PlannedWave{{Expected: []string{"a", "b"}}}},
				events.RunFinished{
					Run: events.Run{PCID: "a", ExecID: exec, RequestID: exec, ResultID: exec, JobID: "hello", Version: "1"}, StartedAt: at, FinishedAt: at,
					State: events.StateSucceeded, Stdout: events.Output{Text: "done"},
				})
		}
		live("old")
		_, stop := startWith(t, b, Config{ReadModelDir: t.TempDir(), Limits: limits})
		snapshotsBecome(t, b, 1)
		stop()
		time.Sleep(20 * time.Hour)
		live("young")
		then := add(t, b, events.ExecClosed{ExecID: "old", Outcome: events.OutcomePartial})
		time.Sleep(10 * time.Hour)
		add(t, b, events.ClockTicked{ID: events.ClockID, Day: "2000-01-02"})

		build := func() (digest map[string]string, r *readmodel.Reader) {
			t.Helper()
			p := asOfProjector(b, t.TempDir())
			p.config.Limits = limits
			require.NoError(t, p.buildPast(t.Context(), then))
			return digestOf(t, pastFiles(t, p.config.ReadModelDir)[0]), openPast(t, p.config.ReadModelDir, then)
		}
		p := asOfProjector(b, t.TempDir())
		found, err := p.usable(t.Context(), then)
		require.NoError(t, err)
		require.Len(t, found, 1)
		fromSnapshot, r := build()
		require.Equal(t, 2, executions(t, r))
		e, err := r.Execution(t.Context(), "old")
		require.NoError(t, err)
		require.True(t, e.Forgotten)
		_, err = r.Result(t.Context(), "old")
		require.ErrorIs(t, err, readmodel.ErrNotFound)
		_, err = r.Result(t.Context(), "young")
		require.NoError(t, err)

		add(t, b, events.ExecReduced{ExecID: "old"})
		stream, err := b.JetStream().Stream(t.Context(), events.StreamLog)
		require.NoError(t, err)
		for seq := uint64(1); seq <= 3; seq++ {
			require.NoError(t, stream.DeleteMsg(t.Context(), seq))
		}
		require.NoError(t, stream.DeleteMsg(t.Context(), then))
		reduced, r := build()
		require.NotEqual(t, fromSnapshot, reduced)
		require.Equal(t, 1, executions(t, r))
		require.NoError(t, p.discard(t.Context()))
		fromLog, _ := build()
		require.Equal(t, fromLog, reduced)
	})
}

// A directory that its reader can't write serves it all the same.
func TestPastIsReadOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, dir := bustest.Connect(t, bustest.Broker(t)), t.TempDir()
		add(t, b, requested("e1"))
		_, stop := startWith(t, b, Config{ReadModelDir: dir})
		askPast(t, b, 1)
		require.Equal(t, 1, executions(t, openPast(t, dir, 1)))
		stop()
		require.NoError(t, os.Chmod(filepath.Join(dir, "past"), 0o555))
		defer func() { require.NoError(t, os.Chmod(filepath.Join(dir, "past"), 0o755)) }()
		require.Equal(t, 1, executions(t, openPast(t, dir, 1)))
		require.Len(t, pastFiles(t, dir), 1, "reading leaves nothing behind")
	})
}

// randomLog is facts of every kind that the tables know, of a few execs and endpoints, some told twice, some by old agents,
// some that nobody can decode.
func randomLog(t testing.TB, random *rand.Rand, n int) []*nats.Msg {
	at := time.Date(2026, 11, 23, 2, 30, 0, 0, time.UTC)
	document := events.DocumentRevision{Document: json.RawMessage(`{"id":"x"}`), Source: "id: x\n", SourceType: "yaml", Hash: "h"}
	known := map[string]bool{}
	draw := func() events.Payload {
		exec, pc := fmt.Sprint("exec-", random.IntN(12)), fmt.Sprint("pc-", random.IntN(6))
		request := events.DeriveID(exec, "request", pc)
		run := events.Run{PCID: pc, ExecID: exec, RequestID: request, ResultID: events.ResultID(request, pc), JobID: "hello", Version: "1"}
		states := []events.TargetState{events.StateSucceeded, events.StateFailed, events.StateTimedOut, events.StateKilled, events.StateUnknown}
		code := random.IntN(2)
		all := []events.Payload{
			requested(exec), requested(exec),
			events.ExecPlanned{ExecID: exec, Waves: []events.PlannedWave{{Expected: []string{"pc-0", "pc-1"}, Waiting: []string{"pc-2"}}, {Expected: []string{"pc-3"}}},
				Skipped: []events.SkippedPC{{PCID: "pc-4", Reason: events.SkipReasonShell}}, ExpiresAt: at.Add(time.Hour)},
			events.WaveReleased{ExecID: exec, Wave: random.IntN(2)}, events.WaveDispatched{ExecID: exec, Wave: random.IntN(2)},
			events.RunReceived{Run: run, ReceivedAt: at}, events.RunStarted{Run: run, StartedAt: at},
			events.RunFinished{Run: run, StartedAt: at, FinishedAt: at.Add(time.Second), State: states[random.IntN(len(states))], ExitCode: &code,
				Stdout: events.Output{Text: fmt.Sprint("out ", random.IntN(3)), Bytes: 5}},
			events.RunSkipped{Run: run, SkippedAt: at, Code: 126, Reason: events.SkipReasonRevoked},
			events.ExecClosed{ExecID: exec, Outcome: events.OutcomePartial}, events.ExecKilled{ExecID: exec, Reason: "bad"},
			events.ExecExpired{ExecID: exec, Outcome: events.OutcomeExpired},
			events.JobSaved{ID: "hello", Version: fmt.Sprint(random.IntN(9)), DocumentRevision: document}, events.JobDeleted{ID: "hello"},
			events.ScheduleSaved{ID: "nightly", JobID: "hello", Enabled: true, DocumentRevision: document}, events.ScheduleDeleted{ID: "nightly"},
			events.ScheduleTicked{ID: "nightly", Outcome: events.TickSkipped, Reason: events.TickReasonDisabled, From: at, To: at.Add(time.Hour), Count: 2},
			events.AgentSeen{PCID: pc, AgentVersion: fmt.Sprint(random.IntN(9))}, events.AgentGrouped{PCID: pc, Groups: []string{fmt.Sprint("g", random.IntN(3))}},
			events.ScriptRevoked{JobID: "hello", Reason: "no"}, events.ScriptUnrevoked{JobID: "hello"},
			events.FreezeSaved{ID: events.FleetID, From: "2026-12-24", TZ: "local"}, events.FreezeCleared{ID: events.FleetID},
		}
		p := all[random.IntN(len(all))]
		if strings.HasPrefix(p.EventType(), "kanade.exec.") && !known[exec] { // an exec begins with its request
			known[exec] = true
			return requested(exec)
		}
		return p
	}
	log := make([]*nats.Msg, 0, n)
	for len(log) < n {
		switch random.IntN(60) {
		case 0, 1, 2, 3, 4:
			result, err := json.Marshal(wire.ExecResult{
				ResultID: fmt.Sprint("r", random.IntN(40)), RequestID: "q", ExecID: fmt.Sprint("exec-", random.IntN(12)), PCID: "pc-5", ExitCode: 1, Stderr: "oops\n",
				StartedAt: at, FinishedAt: at.Add(3 * time.Second), ManifestID: "hello",
			})
			require.NoError(t, err)
			log = append(log, &nats.Msg{Subject: "results.q", Data: result})
		case 5:
			log = append(log, &nats.Msg{Subject: "results.q", Data: []byte("{")})
		default:
			e := event(t, draw(), "")
			e.ID = events.DeriveID(e.ID, fmt.Sprint(len(log))) // one that is told again is another message
			h, body, err := e.Encode()
			require.NoError(t, err)
			log = append(log, &nats.Msg{Subject: e.NATSSubject(), Header: nats.Header(h), Data: body})
		}
	}
	return log
}

// TestProveAsOf draws logs, takes snapshots of them at random points, and asks for random moments: the model of each, begun
// with a snapshot and begun with the log, has the digest of every table of one clean pass up to that message.
// KANADE_PROVE=full asks for 1 000 moments.
func TestProveAsOf(t *testing.T) {
	long(t)
	logs, moments := 4, 12
	if os.Getenv("KANADE_PROVE") == "full" {
		logs, moments = 20, 50
	}
	seed := rand.Uint64()
	if text := os.Getenv("KANADE_SEED"); text != "" {
		_, err := fmt.Sscan(text, &seed)
		require.NoError(t, err)
	}
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	counts := asOfCounts{}
	for n := range logs {
		t.Run(fmt.Sprint(n), func(t *testing.T) { proveAsOf(t, random, moments, &counts) })
	}
	t.Logf("PROVED TestProveAsOf: %d sequences of %d logs, %d messages, %d snapshots; %d begun with a snapshot, %d with the log, %d facts replayed, seed %d",
		counts.moments, logs, counts.messages, counts.snapshots, counts.fromSnapshot, counts.fromLog, counts.replayed, seed)
}

type asOfCounts struct {
	moments, messages, snapshots, fromSnapshot, fromLog int
	replayed                                            uint64
}

func proveAsOf(t *testing.T, random *rand.Rand, moments int, counts *asOfCounts) {
	b := bustest.Connect(t, bustest.Broker(t))
	log := randomLog(t, random, 100+random.IntN(900))
	require.NoError(t, b.PublishAll(t.Context(), log, 0))
	stream, err := b.JetStream().Stream(t.Context(), events.StreamLog)
	require.NoError(t, err)
	for range random.IntN(40) { // there are gaps, but an exec that has facts has its request
		if gone := random.IntN(len(log) - 1); !strings.HasSuffix(log[gone].Subject, ".requested") {
			_ = stream.DeleteMsg(t.Context(), uint64(gone)+1)
		}
	}
	var sequences []uint64
	for _, i := range random.Perm(len(log))[:moments] {
		sequences = append(sequences, uint64(i)+1)
	}
	points := map[uint64]bool{}
	for range 2 + random.IntN(6) {
		points[1+uint64(random.IntN(len(log)))] = true
	}
	clean, digests := t.TempDir(), map[uint64]map[string]string{}
	p := asOfProjector(b, t.TempDir())
	w, err := readmodel.OpenWriter(t.Context(), clean)
	require.NoError(t, err)
	follow, stop := context.WithCancel(t.Context())
	applied := uint64(0)
	err = b.Follow(follow, bus.FollowConfig{Stream: events.StreamLog, MaxBatch: 1 + random.IntN(100), Name: "clean pass"}, func(ctx context.Context, batch []bus.RawMsg) error {
		for _, m := range batch {
			for ; applied < m.Seq-1; applied++ { // the moments in a gap are that of the message before
				if slices.Contains(sequences, applied+1) {
					digests[applied+1] = digestNow(t, w)
				}
			}
			if _, err := w.Apply(ctx, events.StreamLog, []readmodel.Message{readmodel.Message(m)}); err != nil {
				return err
			}
			applied = m.Seq
			if slices.Contains(sequences, m.Seq) {
				digests[m.Seq] = digestNow(t, w)
			}
			if points[m.Seq] {
				file := filepath.Join(t.TempDir(), "snapshot.db")
				at, err := readmodel.Snapshot(ctx, w.Path(), file)
				require.NoError(t, err)
				require.NoError(t, p.store(ctx, snapshotName(at), file))
				counts.snapshots++
			}
		}
		if applied == uint64(len(log)) {
			stop()
		}
		return nil
	})
	stop()
	require.NoError(t, err)
	require.NoError(t, w.Close())

	for _, s := range sequences {
		if found, err := p.usable(t.Context(), s); err == nil && len(found) > 0 {
			counts.fromSnapshot++
			counts.replayed += s - found[0].sequence
		} else {
			require.NoError(t, err)
			counts.fromLog++
			counts.replayed += s
		}
		requireAsOf(t, p, s, digests[s])
	}
	require.NoError(t, p.discard(t.Context()))
	p = asOfProjector(b, t.TempDir())
	for _, s := range sequences {
		requireAsOf(t, p, s, digests[s])
		counts.fromLog++
		counts.replayed += s
	}
	counts.moments, counts.messages = counts.moments+len(sequences), counts.messages+len(log)
}

func asOfProjector(b *bus.Bus, dir string) *projector {
	return &projector{config: Config{ReadModelDir: dir, MaxBatch: 5000}, bus: b, logger: slog.New(slog.DiscardHandler)}
}

func digestNow(t *testing.T, w *readmodel.Writer) map[string]string {
	t.Helper()
	digest, err := w.Digest(t.Context())
	require.NoError(t, err)
	return digest
}

// requireAsOf builds the model of a moment and compares its digests.
func requireAsOf(t *testing.T, p *projector, sequence uint64, want map[string]string) {
	t.Helper()
	require.NotEmpty(t, want)
	require.NoError(t, p.buildPast(t.Context(), sequence))
	files, err := filepath.Glob(filepath.Join(p.config.ReadModelDir, "past", fmt.Sprintf("past-*-%d.db", sequence)))
	require.NoError(t, err)
	require.Len(t, files, 1)
	v, err := readmodel.OpenView(t.Context(), files[0])
	require.NoError(t, err)
	defer v.Close()
	require.LessOrEqual(t, v.Sequence, sequence)
	digest, err := v.Digest(t.Context())
	require.NoError(t, err)
	require.Equal(t, want, digest, "as of %d", sequence)
}
