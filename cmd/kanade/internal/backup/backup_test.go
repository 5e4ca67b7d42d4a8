package backup_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/backup"
	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
)

func TestMain(m *testing.M) { bustest.Main(m) }

func grouped(t *testing.T, b *bus.Bus, pc string, groups ...string) uint64 {
	t.Helper()
	e, err := events.New(events.AgentGrouped{PCID: pc, Groups: groups}, events.Meta{
		ID: events.DeriveID(pc, fmt.Sprint(groups)), Source: "/kanade/test", Time: time.Now().UTC(), Actor: "user:op",
	})
	require.NoError(t, err)
	seq, err := b.Append(t.Context(), e, bus.Any)
	require.NoError(t, err)
	return seq
}

// command stores what a dispatcher would.
func command(t *testing.T, b *bus.Bus, id string) uint64 {
	t.Helper()
	ack, err := b.JetStream().PublishMsg(t.Context(), &nats.Msg{
		Subject: "commands.pc.pc-01", Data: []byte("{}"), Header: nats.Header{events.HeaderMsgID: {id}},
	})
	require.NoError(t, err)
	return ack.Sequence
}

// small is a system with a little of everything.
func small(t *testing.T) *bus.Bus {
	t.Helper()
	b := bustest.Connect(t, bustest.Broker(t))
	for i := range 20 {
		pc := fmt.Sprintf("pc-%02d", i)
		seq := grouped(t, b, pc, "g")
		require.NoError(t, b.PutView(t.Context(), events.BucketAgentGroups, pc, []byte(`{"groups":["g"]}`), seq))
	}
	require.NoError(t, b.PutViewFor(t.Context(), events.BucketExecStopped, "x", []byte("killed"), 3, time.Hour))
	require.NoError(t, b.PutObject(t.Context(), events.StoreScripts, "tool/1", bytes.NewReader(bytes.Repeat([]byte("x"), 300_000))))
	require.NoError(t, b.SetTimer(t.Context(), bus.Timer{Kind: "tick", Key: "s", Generation: "1", At: time.Now().Add(time.Hour)}))
	command(t, b, "unknown/0/commands.pc.pc-01")
	return b
}

func take(t *testing.T, b *bus.Bus) (string, backup.Manifest) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "deep", "backup")
	m, err := backup.Take(t.Context(), b, dir, "1.2.3", bustest.Logger(t))
	require.NoError(t, err)
	return dir, m
}

// contents is every message of every stream of ours.
func contents(t *testing.T, b *bus.Bus) map[string][]bus.RawMsg {
	t.Helper()
	names, err := b.OurStreams(t.Context())
	require.NoError(t, err)
	all := map[string][]bus.RawMsg{}
	for _, name := range names {
		last, err := b.LastSeq(t.Context(), name)
		require.NoError(t, err)
		all[name] = nil
		for seq := uint64(1); seq <= last; seq++ {
			m, ok, err := b.Get(t.Context(), name, seq)
			require.NoError(t, err)
			if ok {
				all[name] = append(all[name], m)
			}
		}
	}
	return all
}

// What comes back is what was there: messages with sequences, times, headers and lifetimes, gaps, and the streams'
// configuration.
func TestRestoreBringsEverythingBack(t *testing.T) {
	b := small(t)
	require.NoError(t, b.DeleteMessage(t.Context(), events.StreamLog, 7))
	last := grouped(t, b, "gone")
	require.NoError(t, b.DeleteMessage(t.Context(), events.StreamLog, last))
	_, err := b.JetStream().CreateConsumer(t.Context(), events.StreamLog, jetstream.ConsumerConfig{
		Durable: "handler", AckPolicy: jetstream.AckExplicitPolicy, FilterSubjects: []string{"events.agent.*.grouped"},
	})
	require.NoError(t, err)
	heard := fetch(t, b, events.StreamLog, "handler", 5)
	require.Equal(t, []uint64{1, 2, 3, 4, 5}, heard)
	_, err = b.JetStream().CreateConsumer(t.Context(), events.StreamExec, jetstream.ConsumerConfig{Durable: "old-agent", AckPolicy: jetstream.AckExplicitPolicy})
	require.NoError(t, err)
	require.Len(t, fetch(t, b, events.StreamExec, "old-agent", 1), 1)
	dir, m := take(t, b)
	require.Equal(t, last, m.Of(events.StreamLog).Last)
	want := contents(t, b)

	other := bustest.Dial(t, bustest.Broker(t))
	r, err := backup.Restore(t.Context(), other, dir)
	require.NoError(t, err)
	require.Zero(t, r.Unknown, "the command was there before the log was taken")
	require.Empty(t, r.Expired)
	require.Equal(t, want, contents(t, other))
	end, err := other.LastSeq(t.Context(), events.StreamLog)
	require.NoError(t, err)
	require.Equal(t, last, end, "no sequence is used twice")
	require.Equal(t, []uint64{6, 8, 9}, fetch(t, other, events.StreamLog, "handler", 3), "handlers go on")
	require.Empty(t, fetch(t, other, events.StreamExec, "old-agent", 1), "old agents don't hear it again")
	require.Equal(t, configs(t, b), configs(t, other))
	require.NoError(t, other.Ensure(t.Context(), bustest.Limits()))
	o, err := other.GetObject(t.Context(), events.StoreScripts, "tool/1", 1<<20)
	require.NoError(t, err)
	require.Len(t, o.Data, 300_000)
}

func configs(t *testing.T, b *bus.Bus) map[string]jetstream.StreamConfig {
	t.Helper()
	all := map[string]jetstream.StreamConfig{}
	for info := range b.JetStream().ListStreams(t.Context()).Info() {
		all[info.Config.Name] = info.Config
	}
	return all
}

// fetch acknowledges up to n messages of a durable and gives their sequences.
func fetch(t *testing.T, b *bus.Bus, stream, durable string, n int) []uint64 {
	t.Helper()
	c, err := b.JetStream().Consumer(t.Context(), stream, durable)
	require.NoError(t, err)
	batch, err := c.FetchNoWait(n)
	require.NoError(t, err)
	var heard []uint64
	for m := range batch.Messages() {
		meta, err := m.Metadata()
		require.NoError(t, err)
		heard = append(heard, meta.Sequence.Stream)
		require.NoError(t, m.DoubleAck(t.Context()))
	}
	require.NoError(t, batch.Error())
	return heard
}

// The log is taken after what is made from it and before what it names.
func TestOrder(t *testing.T) {
	_, m := take(t, small(t))
	var names []string
	for _, s := range m.Streams {
		names = append(names, s.Stream)
	}
	at := slices.Index(names, events.StreamLog)
	require.Equal(t, []string{
		"EXEC", "OBJ_agent_releases", "OBJ_app_packages", "OBJ_result_output", "OBJ_scripts",
	}, names[at+1:])
	for _, before := range []string{"TIMERS", "DEAD", "KV_script_current", "KV_catalog", "KV_exec_stopped", "OBJ_scheduler_state", "OBJ_read_model"} {
		require.Contains(t, names[:at], before)
	}
}

// A command that was stored while the log was taken, of an exec that the log does not know, is not brought back.
func TestCommandsOfUnknownExecs(t *testing.T) {
	b := small(t)
	var sent []uint64
	during := slog.New(slog.DiscardHandler)
	dir := filepath.Join(t.TempDir(), "b")
	m, err := backup.Take(t.Context(), b, dir, "", during)
	require.NoError(t, err)
	// The same as a backup whose log was taken before the command was stored.
	require.Equal(t, uint64(1), m.Released)
	sent = append(sent, command(t, b, "x/0/commands.pc.pc-01"), command(t, b, "old-cli"))
	e, err := events.New(events.WaveReleased{ExecID: "known"}, events.Meta{
		ID: "1", Source: "/kanade/test", Time: time.Now().UTC(), Actor: "user:op",
	})
	require.NoError(t, err)
	_, err = b.Append(t.Context(), e, bus.Any)
	require.NoError(t, err)
	sent = append(sent, command(t, b, "known/0/commands.pc.pc-01"))
	n, err := backup.ForgetUnknown(t.Context(), b, m.Released)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	for i, seq := range sent {
		_, found, err := b.Get(t.Context(), events.StreamExec, seq)
		require.NoError(t, err)
		require.Equal(t, i > 0, found, seq)
	}
	_, found, err := b.Get(t.Context(), events.StreamExec, 1)
	require.NoError(t, err)
	require.True(t, found, "what was stored before the log was taken is known to it")
}

func TestTakeRefuses(t *testing.T) {
	b := small(t)
	dir := t.TempDir()
	_, err := backup.Take(t.Context(), b, dir, "", bustest.Logger(t))
	require.NoError(t, err, "an empty directory is taken")
	_, err = backup.Take(t.Context(), b, dir, "", bustest.Logger(t))
	require.ErrorContains(t, err, "it is not empty")

	elsewhere := filepath.Join(t.TempDir(), "b")
	_, err = backup.Take(t.Context(), bustest.Dial(t, bustest.Broker(t)), elsewhere, "", bustest.Logger(t))
	require.ErrorContains(t, err, "no stream LOG")
	b.Close()
	_, err = backup.Take(t.Context(), b, elsewhere, "", bustest.Logger(t))
	require.ErrorIs(t, err, bus.ErrUnavailable)
	left, err := os.ReadDir(filepath.Dir(elsewhere))
	require.NoError(t, err)
	require.Empty(t, left)
}

// What is missing, damaged or of another kind is refused before anything is written.
func TestRestoreRefuses(t *testing.T) {
	dir, _ := take(t, small(t))
	other := bustest.Dial(t, bustest.Broker(t))
	log := filepath.Join(dir, "LOG.snapshot")
	flip := func(path string, at int) func() {
		return func() {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			text[at] ^= 1
			require.NoError(t, os.WriteFile(path, text, 0o600))
		}
	}
	for name, x := range map[string]struct {
		damage func()
		says   []string
	}{
		"a bit of a file":        {flip(log, 100), []string{log, "SHA-256"}},
		"a file cut short":       {func() { require.NoError(t, os.Truncate(log, 100)) }, []string{log, "it has 100 bytes"}},
		"a file":                 {func() { require.NoError(t, os.Remove(log)) }, []string{log + " is missing"}},
		"a bit of the manifest":  {flip(filepath.Join(dir, "manifest.json"), 20), []string{"manifest.json is damaged"}},
		"the manifest":           {func() { require.NoError(t, os.Remove(filepath.Join(dir, "manifest.json"))) }, []string{"no manifest.json", "no backup"}},
		"the manifest's own sum": {func() { require.NoError(t, os.Remove(filepath.Join(dir, "manifest.sha256"))) }, []string{"manifest.sha256"}},
	} {
		whole := filepath.Join(t.TempDir(), "whole")
		require.NoError(t, os.CopyFS(whole, os.DirFS(dir)))
		x.damage()
		_, err := backup.Restore(t.Context(), other, dir)
		for _, says := range x.says {
			require.ErrorContains(t, err, says, name)
		}
		names, err := other.OurStreams(t.Context())
		require.NoError(t, err)
		require.Empty(t, names, name)
		require.NoError(t, os.RemoveAll(dir))
		require.NoError(t, os.Rename(whole, dir))
	}

	full := bustest.Connect(t, bustest.Broker(t))
	before := contents(t, full)
	_, err := backup.Restore(t.Context(), full, dir)
	require.ErrorContains(t, err, "the broker is not empty, it holds DEAD, EXEC, ")
	require.Equal(t, before, contents(t, full))

	_, err = other.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: "EXEC", Subjects: []string{"x"}})
	require.NoError(t, err)
	_, err = backup.Restore(t.Context(), other, dir)
	require.ErrorContains(t, err, "it holds EXEC;", "somebody else's stream of our name")
	require.NoError(t, other.DeleteStream(t.Context(), "EXEC"))

	// A stream of others whose subjects are ours: found out in the middle of it, and nothing is left.
	_, err = other.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: "THEIRS", Subjects: []string{"commands.>"}})
	require.NoError(t, err)
	_, err = backup.Restore(t.Context(), other, dir)
	require.ErrorContains(t, err, "restore stream EXEC")
	names, err := other.OurStreams(t.Context())
	require.NoError(t, err)
	require.Empty(t, names)
	require.NoError(t, other.DeleteStream(t.Context(), "THEIRS"))
	_, err = backup.Restore(t.Context(), other, dir)
	require.NoError(t, err)
}

// A bucket whose entries are replaced while it is taken is taken again; the check sees what was removed.
func TestReplacedEntriesAreCounted(t *testing.T) {
	b := small(t)
	m, err := b.Snapshot(t.Context(), "KV_"+events.BucketFleetConfig, false, writer(func(p []byte) (int, error) { return len(p), nil }))
	require.NoError(t, err)
	require.Zero(t, m.Removed)
	require.NoError(t, b.PutView(t.Context(), events.BucketFleetConfig, "freeze", []byte("1"), 1))
	seq := uint64(1)
	m, err = b.Snapshot(t.Context(), "KV_"+events.BucketFleetConfig, false, writer(func(p []byte) (int, error) {
		seq++
		return len(p), b.PutView(t.Context(), events.BucketFleetConfig, "freeze", []byte(strings.Repeat("2", int(seq))), seq)
	}))
	require.NoError(t, err)
	require.Positive(t, m.Removed)
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }
