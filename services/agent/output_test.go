package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

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

		object, err := s.bus.GetObject(t.Context(), events.StoreResultOutput, out.Object)
		require.NoError(t, err)
		defer object.Close()
		got, err := io.ReadAll(object)
		require.NoError(t, err)
		require.True(t, bytes.Equal(long, got))
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
