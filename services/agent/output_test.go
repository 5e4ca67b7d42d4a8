package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/events/wire"
)

func TestLongOutputBecomesAnObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		long := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16) // 1 MiB
		s.exec.plays = func(_ context.Context, _ string, _ Script, stdout io.Writer) (Exit, error) {
			_, err := io.Copy(stdout, bytes.NewReader(long))
			return Exit{}, err
		}
		s.start()
		settle(time.Second)
		s.send(wire.SubjectCommandAll, command("r1"))
		settle(5 * time.Second)
		facts := s.facts()
		require.Len(t, facts, 3)
		out := facts[2].Stdout
		require.EqualValues(t, len(long), out.Bytes)
		require.True(t, out.Truncated)
		require.LessOrEqual(t, len(out.Text), events.MaxInlineOutput)
		require.Contains(t, out.Text, "bytes left out")
		require.Equal(t, events.ResultID("r1", testPC)+"/stdout", out.Object)
		require.Empty(t, facts[2].Stderr.Object)

		object, err := s.bus.GetObject(t.Context(), events.StoreResultOutput, out.Object, events.MaxObjectOutput)
		require.NoError(t, err)
		require.True(t, bytes.Equal(long, object.Data))
		sum := sha256.Sum256(long)
		require.Equal(t, hex.EncodeToString(sum[:]), out.SHA256)
		left, err := os.ReadDir(filepath.Join(s.dir, "spool"))
		require.NoError(t, err)
		require.Empty(t, left)
	})
}

// An output that the store does not take holds back its own run's end, not what others have to say; and it goes out when
// the store is there again.
func TestStoreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.exec.plays = func(_ context.Context, _ string, sc Script, stdout io.Writer) (Exit, error) {
			if sc.Body == "long" {
				_, _ = stdout.Write(make([]byte, 100_000))
			}
			return Exit{}, nil
		}
		require.NoError(t, s.bus.JetStream().DeleteObjectStore(t.Context(), events.StoreResultOutput))
		stop := s.start()
		settle(time.Second)
		s.send(wire.SubjectCommandAll, command("r1", func(c *wire.Command) { c.Script = "long" }))
		settle(time.Second)
		s.send(wire.SubjectCommandAll, command("r2"))
		settle(10 * time.Second)
		require.Equal(t, append([]string{"r1:received", "r1:started"}, ran("r2")...), s.kinds())
		stop()
		settle(time.Hour)
		require.NoError(t, s.bus.Ensure(t.Context(), bustest.Limits()))
		s.start()
		settle(5 * time.Second)
		require.Contains(t, s.kinds(), "r1:finished=succeeded")
		require.Equal(t, 2, s.exec.starts())
	})
}

// A store that is full costs the object, not the fact, and delays nothing: it may stay full for weeks.
func TestStoreFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.deps.Metrics = prometheus.NewRegistry()
		s.exec.plays = func(_ context.Context, _ string, _ Script, stdout io.Writer) (Exit, error) {
			_, err := io.Copy(stdout, bytes.NewReader(bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)))
			return Exit{Code: 3}, err
		}
		room := s.resize("OBJ_"+events.StoreResultOutput, 100_000)
		s.start()
		settle(time.Second)
		s.send(wire.SubjectCommandAll, command("r1"))
		s.send(wire.SubjectCommandAll, command("r2"))
		settle(5 * time.Second)
		require.ElementsMatch(t, []string{
			"r1:received", "r1:started", "r1:finished=failed", "r2:received", "r2:started", "r2:finished=failed",
		}, s.kinds())
		for _, f := range s.facts() {
			if f.Kind != events.RunKindFinished {
				continue
			}
			require.Equal(t, 3, *f.Code)
			require.Empty(t, f.Stdout.Object)
			require.Empty(t, f.Stdout.SHA256, "nothing is kept that it could be of")
			require.True(t, f.Stdout.Truncated)
			require.EqualValues(t, 1<<20, f.Stdout.Bytes)
			require.True(t, strings.HasPrefix(f.Stdout.Text, "0123456789abcde\n"))
			require.True(t, strings.HasSuffix(f.Stdout.Text, "0123456789abcde\n"))
			require.Contains(t, f.Stdout.Text, "bytes left out")
		}
		require.Equal(t, 2.0, counted(t, s.deps.Metrics, "kanade_agent_outputs_cut_total"))
		left, err := os.ReadDir(filepath.Join(s.dir, "spool"))
		require.NoError(t, err)
		require.Empty(t, left)

		s.resize("OBJ_"+events.StoreResultOutput, room)
		s.send(wire.SubjectCommandAll, command("r3"))
		settle(5 * time.Second)
		facts := s.facts()
		require.NotEmpty(t, facts[len(facts)-1].Stdout.Object)
	})
}

// counted is the value of a counter that has one.
func counted(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	require.NoError(t, err)
	for _, f := range families {
		if f.GetName() == name {
			require.Len(t, f.GetMetric(), 1)
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return 0
}

// A file that vanished from the spool costs the object, not the fact.
func TestSpoolFileVanished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		s.exec.plays = func(_ context.Context, _ string, _ Script, stdout io.Writer) (Exit, error) {
			_, _ = stdout.Write(make([]byte, 100_000))
			return Exit{}, nil
		}
		require.NoError(t, s.bus.JetStream().DeleteObjectStore(t.Context(), events.StoreResultOutput))
		s.start()
		settle(time.Second)
		s.send(wire.SubjectCommandAll, command("r1"))
		settle(time.Second)
		require.NoError(t, os.Remove(filepath.Join(s.dir, "spool", events.ResultID("r1", testPC)+".stdout")))
		settle(5 * time.Minute)
		require.Equal(t, ran("r1"), s.kinds())
		require.Empty(t, s.facts()[2].Stdout.Object)
		require.True(t, s.facts()[2].Stdout.Truncated)
	})
}

func TestScriptObject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		body := append([]byte("say "), bytes.Repeat([]byte("x"), 300_000)...) // several chunks
		require.NoError(t, s.bus.PutObject(t.Context(), events.StoreScripts, "long/1.0.0", bytes.NewReader(body)))
		s.start()
		settle(time.Second)
		digest := wire.HexDigest(sha256.Sum256(body))
		object := func(name, digest string) func(*wire.Command) {
			return func(c *wire.Command) { c.Script, c.ScriptObject, c.ScriptObjectSHA256 = "", name, digest }
		}
		s.send(wire.SubjectCommandAll, command("good", object("long/1.0.0", digest)))
		s.send(wire.SubjectCommandAll, command("changed", object("long/1.0.0", wire.HexDigest(sha256.Sum256(nil)))))
		s.send(wire.SubjectCommandAll, command("missing", object("none/1.0.0", digest)))
		settle(5 * time.Second)
		require.Subset(t, s.kinds(), append(ran("good"), "changed:skipped=script_object", "missing:skipped=script_object"))
		require.Equal(t, []string{string(body)}, s.exec.bodies())
		info, err := s.bus.JetStream().Stream(t.Context(), "OBJ_"+events.StoreScripts)
		require.NoError(t, err)
		require.Zero(t, info.CachedInfo().State.Consumers, "an endpoint makes no consumer")
	})
}
