package wire

import (
	"testing"
	"time"
)

func TestSkip(t *testing.T) {
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	base := ExecResult{ExitCode: ExitStaleness, Stderr: "skipped: too old", StartedAt: at, FinishedAt: at.In(time.FixedZone("", 3600))}
	for _, c := range []struct {
		name   string
		change func(*ExecResult)
		skip   bool
	}{
		{"a skip", func(*ExecResult) {}, true},
		{"124", func(r *ExecResult) { r.ExitCode = ExitVersionPin }, true},
		{"123", func(r *ExecResult) { r.ExitCode = 123 }, false},
		{"128", func(r *ExecResult) { r.ExitCode = 128 }, false},
		{"exit 0", func(r *ExecResult) { r.ExitCode = 0 }, false},
		{"stdout", func(r *ExecResult) { r.Stdout = "x" }, false},
		{"stdout in an object", func(r *ExecResult) { r.StdoutObject = "x" }, false},
		{"took time", func(r *ExecResult) { r.FinishedAt = at.Add(1) }, false},
		{"a shell's 127", func(r *ExecResult) { r.Stderr = "sh: nope: not found\n" }, false},
		{"skipped later in stderr", func(r *ExecResult) { r.Stderr = "x\nskipped: y" }, false},
	} {
		r := base
		c.change(&r)
		reason, ok := r.Skip()
		if ok != c.skip || ok && reason != "too old" {
			t.Errorf("%s: %q, %v", c.name, reason, ok)
		}
	}
}

func TestEnded(t *testing.T) {
	killed, timeout := KilledNote("e"), TimeoutNote(30)
	for _, c := range []struct {
		code   int
		stderr string
		want   End
	}{
		{0, "", EndExit},
		{0, killed, EndExit},
		{ExitRevoked, "skipped: x", EndExit},
		{-1, "", EndSignal},
		{-1, "Segmentation fault\n", EndSignal},
		{-1, killed, EndKilled},
		{-1, "output\n\n" + killed, EndKilled},
		{-1, timeout, EndTimeout},
		{-1, "output\n" + timeout, EndTimeout},
		{-1, "output\n" + timeout + "\n3 attempts were made", EndTimeout},
		{-1, killed + "\n3 attempts were made", EndKilled},
		{-1, timeout + "\n" + killed, EndKilled},
		{-1, "output\n3 attempts were made", EndSignal},
		// The script's own line, ended by the script's own newline: agents end with none.
		{-1, timeout + "\n", EndSignal},
		{-1, timeout + "\na\nb", EndSignal},
		{-1, "timeout after a while, no results", EndSignal},
		{-1, "timeout after 30s or so", EndSignal},
		{-1, "it was killed by remote signal (kill.e)", EndSignal},
	} {
		r := ExecResult{ExitCode: c.code, Stderr: c.stderr}
		if got := r.Ended(); got != c.want {
			t.Errorf("exit %d, %q: %s, want %s", c.code, c.stderr, got, c.want)
		}
	}
	r := ExecResult{ExitCode: ExitStopped, StderrObject: "r/stderr"}
	if got := r.Ended(); got != EndUnread {
		t.Errorf("stderr in an object: %s", got)
	}
}

func TestLegacyResultID(t *testing.T) {
	// The value was computed apart from this code: SHA-1 of the OID namespace and the name.
	const want = "e1c7bef3-5085-505c-a0f0-19d3235d46e3"
	r := ExecResult{RequestID: "req-1", PCID: "pc-01"}
	if got := r.EffectiveResultID(); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	r.ResultID = "own"
	if got := r.EffectiveResultID(); got != "own" {
		t.Errorf("%s", got)
	}
	if LegacyResultID("req-1", "pc-02") == want {
		t.Error("two endpoints meet")
	}
}
