package wire

import (
	"bytes"
	"encoding/json"
	"testing"
)

// fuzz checks of a kind: nothing panics, what is read is JSON, and what was read is written so that it is read as the same.
func fuzz[T any](f *testing.F, kind string, decode func([]byte) (T, error)) {
	for _, r := range recordings(f) {
		if r.kind == kind {
			f.Add(r.data)
		}
	}
	f.Add([]byte(complete()[kind]))
	f.Add([]byte(`{"id":null,"at":"2026-11-23T10:00:00+23:59","payload":{"a":[1e400]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		once, err := decode(data)
		if err != nil {
			return
		}
		if !json.Valid(data) {
			t.Fatalf("read from what is no JSON: %q", data)
		}
		written, err := json.Marshal(once)
		if err != nil {
			t.Fatalf("%q is read but not written: %v", data, err)
		}
		twice, err := decode(written)
		if err != nil {
			t.Fatalf("%q is written as %q and not read again: %v", data, written, err)
		}
		again, err := json.Marshal(twice)
		if err != nil || !bytes.Equal(written, again) {
			t.Fatalf("%q is written as %q and then as %q, %v", data, written, again, err)
		}
	})
}

func FuzzCommand(f *testing.F)        { fuzz(f, "command", DecodeCommand) }
func FuzzEventStarted(f *testing.F)   { fuzz(f, "started", DecodeEventStarted) }
func FuzzHeartbeat(f *testing.F)      { fuzz(f, "heartbeat", DecodeHeartbeat) }
func FuzzHostPerf(f *testing.F)       { fuzz(f, "host_perf", DecodeHostPerf) }
func FuzzProcessPerf(f *testing.F)    { fuzz(f, "process_perf", DecodeProcessPerf) }
func FuzzObsEvent(f *testing.F)       { fuzz(f, "obs", DecodeObsEvent) }
func FuzzAuditEvent(f *testing.F)     { fuzz(f, "audit", DecodeAuditEvent) }
func FuzzConfigScope(f *testing.F)    { fuzz(f, "config_scope", DecodeConfigScope) }
func FuzzAgentGroups(f *testing.F)    { fuzz(f, "agent_groups", DecodeAgentGroups) }
func FuzzFreeze(f *testing.F)         { fuzz(f, "freeze", DecodeFreeze) }
func FuzzJobTailRequest(f *testing.F) { fuzz(f, "job_tail_request", DecodeJobTailRequest) }
func FuzzJobTailReply(f *testing.F)   { fuzz(f, "job_tail_reply", DecodeJobTailReply) }
func FuzzLogsRequest(f *testing.F)    { fuzz(f, "logs_request", DecodeLogsRequest) }

func FuzzExecResult(f *testing.F) { fuzz(f, "result", DecodeExecResult) }

func FuzzEndOf(f *testing.F) {
	f.Add(-1, KilledNote("e"))
	f.Add(-1, "output\n"+TimeoutNote(30)+"\n3 attempts were made")
	f.Add(127, "skipped: x")
	f.Fuzz(func(t *testing.T, code int, stderr string) {
		end := EndOf(code, stderr)
		if (code == ExitStopped) == (end == EndExit) || end == EndUnread {
			t.Fatalf("exit %d, %q: %s", code, stderr, end)
		}
		if code == ExitStopped && EndOf(code, stderr+"\n"+TimeoutNote(7)) != EndTimeout {
			t.Fatalf("a note after %q is not heard", stderr)
		}
	})
}

func FuzzDigest(f *testing.F) {
	f.Add("SHA-256=I3PoGrx0PLdu6C0Vfmsb7ej_poGfBx_vjHf60pyggkQ=")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := ParseDigest(text)
		if err != nil {
			return
		}
		if got := FormatDigest(d); got != text && got != text+"=" {
			t.Fatalf("%q becomes %q", text, got)
		}
	})
}

func BenchmarkDecodeExecResult(b *testing.B) {
	data := []byte(complete()["result"])
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeExecResult(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeCommand(b *testing.B) {
	c, err := DecodeCommand([]byte(complete()["command"]))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := json.Marshal(c); err != nil {
			b.Fatal(err)
		}
	}
}
