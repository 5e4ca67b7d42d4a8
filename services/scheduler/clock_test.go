package scheduler_test

import (
	"bytes"
	"context"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus/broker"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
)

// TestProveClock shows that a scheduler does not go by its host's clock: no file of the service reads it, so that *now* is
// the broker's alone. With KANADE_PROVE=full a scheduler is built, as a process, with a standard library whose wall clock jumps: two hours ahead at its start, then back by eight hours, then forward by days, while its monotonic clock goes on, as
// it does when somebody sets the clock of a machine. No tick of a cron of every second and of every seven is lost, doubled or
// taken for late, and an interval fires at its minutes. It needs some minutes to compile everything on that library. What is
// not shown is a broker whose own clock is set: it is what ticks are judged by, so that those of a time that it leaps over are
// caught up, and those of a time that it goes through twice are in the ledger already.
func TestProveClock(t *testing.T) {
	files := requireNoClock(t)
	full, _ := proof(t, 1, 0)
	if full == 0 {
		t.Logf("PROVED %s: %d files of the service decide by no clock of the host; the process was not run, nothing is drawn", t.Name(), files)
		return
	}
	program := buildJumping(t)
	br, err := broker.Start(broker.Config{StoreDir: t.TempDir(), Listen: "127.0.0.1:0", Token: bustest.Token, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(br.Shutdown)
	w := &world{t: t, broker: br}
	w.bus = bustest.Connect(t, br)
	w.ears = w.listen()
	var output bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	process := exec.CommandContext(ctx, program, "--listen", "127.0.0.1:0", "--nats-url", br.URL())
	process.Env = append(os.Environ(), "KANADE_NATS_TOKEN="+bustest.Token)
	process.Stdout, process.Stderr = &output, &output
	process.Cancel = func() error { return process.Process.Signal(os.Interrupt) }
	require.NoError(t, process.Start())
	w.agent("pc1", nil)
	w.job("job", "1")
	w.schedule("second", "when: {cron: '* * * * * *'}\ntarget: {pcs: [pc1]}\ntz: utc\noverlap: allow")
	w.schedule("seventh", "when: {cron: '*/7 * * * * *'}\ntarget: {pcs: [away]}\ntz: utc\noverlap: allow\ncatch_up: none")
	w.schedule("minute", "when: {per_pc: {every: 1m}}\ntarget: {pcs: [pc1]}")
	saved := time.Now()
	timer := time.NewTimer(130 * time.Second) // the last jump is at 60 s
	defer timer.Stop()
	<-timer.C
	for _, id := range []string{"second", "seventh"} {
		w.append(events.ScheduleDeleted{ID: id})
	}
	until := time.Now()
	require.Eventually(t, func() bool {
		rows := w.ledger("second")
		return len(rows) > 0 && !rows[len(rows)-1].To.Before(until.Truncate(time.Second))
	}, 30*time.Second, 100*time.Millisecond)
	c := w.chronicle()
	cancel()
	_ = process.Wait() // it was told to end
	ticks := 0
	for id, step := range map[string]int{"second": 1, "seventh": 7} {
		var nominal []time.Time
		for at := saved.UTC().Truncate(time.Second).Add(time.Second); !at.After(until); at = at.Add(time.Second) {
			if at.Second()%step == 0 {
				nominal = append(nominal, at)
			}
		}
		for at, outcome := range c.requireNominal(t, id, nominal) {
			require.True(t, outcome == "fired " || until.Sub(at) < 3*time.Second, "%s: %s %s\n%s", id, at, outcome, output.String())
			ticks++
		}
	}
	fires := c.requireCadence(t, cadence{id: "minute", every: time.Minute, members: []string{"pc1"}, from: saved, slack: time.Minute}, until)
	require.GreaterOrEqual(t, fires, 2)
	t.Logf("PROVED %s: %d files of the service decide by no clock of the host; a process whose clock was wrong, set back and set forward: %d ticks on time, once each, %d fires of an interval, nothing is drawn",
		t.Name(), files, ticks, fires)
}

// requireNoClock looks through every file of the service that is no test.
func requireNoClock(t *testing.T) (files int) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, 0)
		if err != nil {
			return err
		}
		files++
		for _, i := range file.Imports {
			require.False(t, i.Path.Value == `"time"` && i.Name != nil, "%s imports time under another name", path)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, is := n.(*ast.SelectorExpr); is && slices.Contains([]string{"Now", "Since", "Until"}, s.Sel.Name) {
				x, named := s.X.(*ast.Ident)
				require.False(t, named && x.Name == "time", "%s reads the host's clock; ask the broker's (bus.Now)", set.Position(s.Pos()))
			}
			return true
		})
		return nil
	}))
	require.Greater(t, files, 25)
	return files
}

// jumping takes the place of time.Now: the wall clock is set twice, and wrong from the start, while the monotonic one goes on.
const jumping = `func Now() Time {
	t := steadyNow()
	shift := int64(2 * 3600)
	switch age := (runtimeNano() - startNano) / 1e9; {
	case age >= 60:
		shift = 3 * 86400
	case age >= 30:
		shift = -6 * 3600
	}
	t.wall += uint64(shift << nsecShift)
	return t
}

func steadyNow() Time {`

// buildJumping builds the scheduler on a standard library whose clock jumps.
func buildJumping(t *testing.T) string {
	t.Helper()
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	require.NoError(t, err)
	original := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	source, err := os.ReadFile(original)
	require.NoError(t, err)
	require.Equal(t, 1, bytes.Count(source, []byte("func Now() Time {")), runtime.Version())
	dir := t.TempDir()
	changed, overlay, program := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "scheduler")
	// linkname directives and the like stand before the function, and stay with it.
	require.NoError(t, os.WriteFile(changed, bytes.Replace(source, []byte("func Now() Time {"), []byte(jumping), 1), 0o600))
	files, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(overlay, files, 0o600))
	out, err := exec.CommandContext(t.Context(), "go", "build", "-overlay", overlay, "-o", program, "./cmd/scheduler").CombinedOutput()
	require.NoError(t, err, "%s", out)
	return program
}
