package readmodel

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"kanade/libs/events"
)

const envVictim = "KANADE_READMODEL_VICTIM"

func TestMain(m *testing.M) {
	if dir := os.Getenv(envVictim); dir != "" {
		victim(dir)
		return
	}
	if dirs := os.Getenv(envBeside); dirs != "" {
		writeBeside(dirs)
		return
	}
	goleak.VerifyTestMain(m)
}

// lives is a log of whole execs with ten endpoints each.
func lives(t require.TestingT, execs int) []Message {
	j := &journal{t: t}
	for n := range execs {
		exec := events.DeriveID("lives", string(rune('a'+n%26)), time.Duration(n).String())
		plan := events.ExecPlanned{ExecID: exec, Waves: make([]events.PlannedWave, 1), ExpiresAt: begin.Add(time.Hour)}
		for pc := range 10 {
			plan.Waves[0].Expected = append(plan.Waves[0].Expected, run(exec, pc).PCID)
		}
		for _, p := range []events.Payload{requested(exec, "hello"), plan, events.WaveDispatched{ExecID: exec}} {
			j.append(p, "user:op")
		}
		for pc := range 10 {
			r := run(exec, pc)
			for _, p := range []events.Payload{events.RunStarted{Run: r, StartedAt: begin}, finished(r, events.StateSucceeded)} {
				j.append(p, "agent:pc")
			}
		}
		j.append(events.ExecClosed{ExecID: exec, Outcome: events.OutcomeSucceeded}, "service:scheduler")
	}
	return j.messages
}

func open(t testing.TB, dir string) *Writer {
	t.Helper()
	w, err := OpenWriter(t.Context(), dir)
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.Close() })
	return w
}

func apply(t testing.TB, w *Writer, log []Message) {
	t.Helper()
	_, err := w.Apply(t.Context(), events.StreamLog, log)
	require.NoError(t, err)
}

func digest(t testing.TB, w *Writer) map[string]string {
	t.Helper()
	d, err := w.Digest(t.Context())
	require.NoError(t, err)
	return d
}

// victim applies a log in batches of 7 from its checkpoint on, until it is killed.
func victim(dir string) {
	w, err := OpenWriter(context.Background(), dir)
	if err != nil {
		panic(err)
	}
	log := lives(panics{}, victimExecs)
	at, err := w.Checkpoint(events.StreamLog)
	for n := int(at.Sequence); err == nil && n < len(log); n += 7 {
		_, err = w.Apply(context.Background(), events.StreamLog, log[n:min(n+7, len(log))])
	}
	if err != nil {
		panic(err)
	}
	select {}
}

type panics struct{}

func (panics) Errorf(format string, _ ...any) { panic(format) }
func (panics) FailNow()                       { panic("failed") }

// TestProveSigkillCommits kills a writer with SIGKILL while it commits: what is left are whole batches, what its checkpoint
// says and nothing else, and the next one goes on from there.
func TestProveSigkillCommits(t *testing.T) {
	kills := 4
	if os.Getenv("KANADE_PROVE") == "full" {
		kills = 300
	}
	dir, log := t.TempDir(), lives(t, victimExecs)
	r := read(t, dir)
	killed, rounds := 0, 1
	for ; killed < kills; killed++ {
		left := open(t, dir)
		at, err := left.Checkpoint(events.StreamLog)
		require.NoError(t, err)
		if int(at.Sequence) == len(log) { // from the beginning
			require.NoError(t, left.Close())
			dir, rounds = t.TempDir(), rounds+1
			r = read(t, dir)
			left = open(t, dir)
		}
		require.NoError(t, left.Close())
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), envVictim+"="+dir)
		require.NoError(t, cmd.Start())
		some := at.Sequence%uint64(len(log)) + 1 + uint64(rand.IntN(len(log)/4))
		require.NoError(t, r.WaitFor(within(t, 30*time.Second), min(some, uint64(len(log)))))
		require.NoError(t, cmd.Process.Kill())
		_ = cmd.Wait()

		left = open(t, dir)
		at, err = left.Checkpoint(events.StreamLog)
		require.NoError(t, err)
		clean := open(t, t.TempDir())
		apply(t, clean, log[:at.Sequence])
		require.Equal(t, digest(t, clean), digest(t, left), "at %d", at.Sequence)
		require.NoError(t, clean.Close())
		require.NoError(t, left.Close())
	}
	t.Logf("PROVED %s: killed %d times, in %d passes over %d messages in batches of 7", t.Name(), killed, rounds, len(log))
}

// victimExecs is how long the log of a victim is.
const victimExecs = 200

func TestApplyPoison(t *testing.T) {
	j := &journal{t: t}
	j.append(requested("e1", "hello"), "user:op")
	j.store("results.4", nil, []byte("no json"))
	j.store("events.exec.e1.planned", nil, []byte("{}"))
	j.append(events.ExecClosed{ExecID: "e1", Outcome: events.OutcomeFailed}, "service:scheduler")
	w := open(t, t.TempDir())
	for range 2 {
		poison, err := w.Apply(t.Context(), events.StreamLog, j.messages)
		require.NoError(t, err)
		at, err := w.Checkpoint(events.StreamLog)
		require.NoError(t, err)
		require.EqualValues(t, 4, at.Sequence)
		require.Equal(t, j.messages[3].Time, at.At)
		if len(poison) == 0 {
			return // the second time, all of it lies before the checkpoint
		}
		require.Len(t, poison, 2)
		var decode *events.DecodeError
		for i, p := range poison {
			require.EqualValues(t, i+2, p.Message.Seq)
			require.ErrorAs(t, p.Err, &decode)
		}
	}
	t.Fatal("poison was given back twice")
}

// An error of the database leaves nothing of its batch, and the same batch can be applied again.
func TestApplyError(t *testing.T) {
	log := lives(t, 3)
	w := open(t, t.TempDir())
	apply(t, w, log[:20])
	before := digest(t, w)
	_, err := w.db.conn.ExecContext(t.Context(), "CREATE TRIGGER full BEFORE INSERT ON results BEGIN SELECT RAISE(ABORT, 'disk full'); END")
	require.NoError(t, err)
	_, err = w.Apply(t.Context(), events.StreamLog, log[20:])
	require.ErrorContains(t, err, "disk full")
	require.Equal(t, before, digest(t, w))
	_, err = w.db.conn.ExecContext(t.Context(), "DROP TRIGGER full")
	require.NoError(t, err)
	apply(t, w, log[20:])
	clean := open(t, t.TempDir())
	apply(t, clean, log)
	require.Equal(t, digest(t, clean), digest(t, w))
}

func TestSlots(t *testing.T) {
	dir := t.TempDir()
	first, second := open(t, dir), open(t, dir)
	require.Equal(t, "slot-0", filepath.Base(filepath.Dir(first.Path())))
	require.Equal(t, "slot-1", filepath.Base(filepath.Dir(second.Path())))
	apply(t, first, lives(t, 1))
	require.NoError(t, first.Close())
	other := filepath.Join(dir, "slot-0", "model-0123456789ab-00000000.db")
	require.NoError(t, os.WriteFile(other, []byte("of another version"), 0o644))
	again := open(t, dir)
	require.Equal(t, first.Path(), again.Path(), "the slot that was freed, and its file")
	at, err := again.Checkpoint(events.StreamLog)
	require.NoError(t, err)
	require.EqualValues(t, len(lives(t, 1)), at.Sequence)
	require.FileExists(t, other)
}

// Whatever a message holds, Apply either applies it or gives it back; the database never refuses it.
func FuzzApply(f *testing.F) {
	for _, m := range lives(f, 1)[:6] {
		f.Add(m.Subject, m.Header["ce-type"][0], m.Data)
	}
	f.Add("events.started.x.y", "", []byte(`{"pc_id":"p\u0000","exec_id":"e","result_id":"r","started_at":"9999-12-31T00:00:00Z"}`))
	f.Add("results.1", "", []byte(`{"pc_id":"p","request_id":"q","exit_code":-2147483648,"started_at":"0001-01-01T00:00:00Z","finished_at":"1500-01-01T00:00:00Z"}`))
	f.Add("events.exec.e.requested", "kanade.exec.requested.v1", []byte(`{"exec_id":"e","job_sequence":18446744073709551615}`))
	f.Add("events.exec.e.planned", "kanade.exec.planned.v1", []byte(`{"exec_id":"e","max_parallel":1,"waves":[{"expected":["p","p"],"waiting":["q"],"delay_secs":18446744073709551615},{"expected":["p"]}]}`))
	f.Add("events.exec.e.wave-dispatched", "kanade.exec.wave-dispatched.v1", []byte(`{"exec_id":"e","wave":-1,"from":-2,"to":9223372036854775807}`))
	f.Add("events.exec.e.wave-released", "kanade.exec.wave-released.v1", []byte(`{"exec_id":"e","wave":1,"from":2,"expires_at":"9999-12-31T00:00:00Z"}`))
	w := open(f, f.TempDir())
	seq := uint64(0)
	f.Fuzz(func(t *testing.T, subject, kind string, data []byte) {
		var h events.Header
		if kind != "" {
			e := events.Event{Meta: events.Meta{ID: "i", Time: begin}, Type: kind, Subject: "e", Data: data}
			subject = e.NATSSubject()
			h, data, _ = e.Encode()
		}
		for _, stream := range []string{events.StreamLog, events.StreamPresence} {
			seq++
			_, err := w.Apply(t.Context(), stream, []Message{{Stream: stream, Subject: subject, Seq: seq, Time: begin, Header: h, Data: data}})
			require.NoError(t, err)
		}
		checkTotals(t, w)
	})
}
