package wire

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// message is what all messages are in tests: decoded by json.Unmarshal, encoded by json.Marshal.
type message struct {
	name string
	// decode reads by the exported function, so that a wrong wiring shows.
	decode func([]byte) (any, error)
	// subject builds the subject from the payload; nil where the payload does not tell.
	subject func(any) string
}

func decoder[T any](fn func([]byte) (T, error)) func([]byte) (any, error) {
	return func(data []byte) (any, error) { return fn(data) }
}

func messages() map[string]message {
	m := map[string]message{}
	add := func(name string, d func([]byte) (any, error), subject func(any) string) {
		m[name] = message{name, d, subject}
	}
	add("command", decoder(DecodeCommand), nil)
	add("result", decoder(DecodeExecResult), func(v any) string { return SubjectResults(v.(ExecResult).RequestID) })
	add("started", decoder(DecodeEventStarted), func(v any) string {
		return SubjectStarted(v.(EventStarted).ExecID, v.(EventStarted).PCID)
	})
	add("heartbeat", decoder(DecodeHeartbeat), func(v any) string { return SubjectHeartbeat(v.(Heartbeat).PCID) })
	add("host_perf", decoder(DecodeHostPerf), func(v any) string { return SubjectHostPerf(v.(HostPerf).PCID) })
	add("process_perf", decoder(DecodeProcessPerf), func(v any) string { return SubjectProcessPerf(v.(ProcessPerf).PCID) })
	add("obs", decoder(DecodeObsEvent), func(v any) string { return SubjectObs(v.(ObsEvent).PCID) })
	add("audit", decoder(DecodeAuditEvent), func(v any) string {
		a := v.(AuditEvent)
		return SubjectAudit(a.Actor, a.Action, a.Target)
	})
	add("config_scope", decoder(DecodeConfigScope), nil)
	add("agent_groups", decoder(DecodeAgentGroups), nil)
	add("freeze", decoder(DecodeFreeze), nil)
	add("job_tail_request", decoder(DecodeJobTailRequest), nil)
	add("job_tail_reply", decoder(DecodeJobTailReply), nil)
	add("logs_request", decoder(DecodeLogsRequest), nil)
	return m
}

// recording is one recorded message.
type recording struct {
	kind, subject string
	data          []byte
}

func readRecorded(tb testing.TB, file string, into any) {
	tb.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		tb.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		tb.Fatalf("%s: %v", file, err)
	}
}

// recordings are all recorded messages that this package holds.
func recordings(tb testing.TB) []recording {
	tb.Helper()
	var all []recording
	for file, kind := range map[string]string{
		"commands.json": "command", "results.json": "result", "started.json": "started", "heartbeat.json": "heartbeat",
		"host_perf.json": "host_perf", "process_perf.json": "process_perf", "obs.json": "obs", "audit.json": "audit",
	} {
		var items []struct {
			Subject string
			JSON    json.RawMessage
		}
		readRecorded(tb, file, &items)
		for _, i := range items {
			all = append(all, recording{kind, i.Subject, i.JSON})
		}
	}
	var writes []struct {
		Bucket, Key string
		JSON        json.RawMessage
	}
	readRecorded(tb, "kv.json", &writes)
	buckets := map[string]string{"agent_config": "config_scope", "agent_groups": "agent_groups", "fleet_config": "freeze"}
	for _, w := range writes {
		if kind := buckets[w.Bucket]; kind != "" && w.JSON != nil {
			all = append(all, recording{kind, "", w.JSON})
		}
	}
	var requests []struct {
		Subject        string
		Request, Reply struct{ JSON json.RawMessage }
	}
	readRecorded(tb, "requests.json", &requests)
	for _, r := range requests {
		switch {
		case strings.HasPrefix(r.Subject, "job.tail."):
			all = append(all, recording{"job_tail_request", "", r.Request.JSON}, recording{"job_tail_reply", "", r.Reply.JSON})
		case strings.HasPrefix(r.Subject, "logs.fetch."):
			all = append(all, recording{"logs_request", "", r.Request.JSON})
		case strings.HasSuffix(r.Subject, ".ping"):
			all = append(all, recording{"heartbeat", "", r.Reply.JSON})
		default:
			tb.Fatalf("requests.json: what is %s?", r.Subject)
		}
	}
	return all
}

// known drops null members, which mean the same as absent ones.
func known(tb testing.TB, data []byte) any {
	tb.Helper()
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		tb.Fatalf("%s: %v", data, err)
	}
	if object, ok := v.(map[string]any); ok {
		for k, m := range object {
			if m == nil {
				delete(object, k)
			}
		}
	}
	return v
}

func TestRecordedMessagesSurviveARoundTrip(t *testing.T) {
	kinds := messages()
	counts := map[string]int{}
	for _, r := range recordings(t) {
		counts[r.kind]++
		v, err := kinds[r.kind].decode(r.data)
		if err != nil {
			t.Errorf("%s %s: %v", r.kind, r.subject, err)
			continue
		}
		again, err := json.Marshal(v)
		if err != nil {
			t.Errorf("%s %s: %v", r.kind, r.subject, err)
			continue
		}
		if want, got := known(t, r.data), known(t, again); !reflect.DeepEqual(want, got) {
			t.Errorf("%s %s:\nrecorded %s\nencoded  %s", r.kind, r.subject, r.data, again)
		}
		if subject := kinds[r.kind].subject; subject != nil && r.subject != "" && subject(v) != r.subject {
			t.Errorf("%s: recorded on %s, built %s", r.kind, r.subject, subject(v))
		}
		plain := reflect.New(reflect.TypeOf(v))
		if err := json.Unmarshal(r.data, plain.Interface()); err != nil || !reflect.DeepEqual(plain.Elem().Interface(), v) {
			t.Errorf("%s: json.Unmarshal gives %+v, %v; the decode function %+v", r.kind, plain.Elem(), err, v)
		}
	}
	for kind := range kinds {
		if counts[kind] == 0 {
			t.Errorf("no recorded message is a %s", kind)
		}
	}
}

func TestRecordedCommandsCarryNoAdditions(t *testing.T) {
	for _, r := range recordings(t) {
		if r.kind != "command" {
			continue
		}
		c, err := DecodeCommand(r.data)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Additions(); len(got) != 0 {
			t.Errorf("%s: %v", c.RequestID, got)
		}
		if err := c.Validate(); err != nil {
			t.Error(err)
		}
		switch kind, name, _ := strings.Cut(strings.TrimPrefix(r.subject, "commands."), "."); {
		case kind == "all" && r.subject == SubjectCommandAll:
		case kind == "group" && r.subject == SubjectCommandGroup(name):
		case kind == "pc" && r.subject == SubjectCommandPC(name):
		default:
			t.Errorf("no builder makes %s", r.subject)
		}
	}
}

func TestRecordedResultsTellHowTheyEnded(t *testing.T) {
	started := map[string]bool{}
	ends, skips := map[End]int{}, map[int]string{}
	for _, r := range recordings(t) {
		if r.kind == "started" {
			s, err := DecodeEventStarted(r.data)
			if err != nil {
				t.Fatal(err)
			}
			started[s.ResultID] = true
		}
	}
	for _, r := range recordings(t) {
		if r.kind != "result" {
			continue
		}
		res, err := DecodeExecResult(r.data)
		if err != nil {
			t.Fatal(err)
		}
		if res.EffectiveResultID() != res.ResultID {
			t.Errorf("%s has an id of its own", res.ResultID)
		}
		reason, skipped := res.Skip()
		if skipped && started[res.ResultID] {
			t.Errorf("%s started, and is taken for a skip", res.ResultID)
		}
		if skipped {
			skips[res.ExitCode] = reason
		}
		ends[res.Ended()]++
	}
	if skips[ExitRevoked] != "command was revoked (script_status[hello] = revoked)" ||
		!strings.HasPrefix(skips[ExitDeadline], "starting deadline expired") || len(skips) != 2 {
		t.Errorf("skips: %v", skips)
	}
	if ends[EndKilled] != 1 || ends[EndTimeout] != 1 || ends[EndSignal] != 0 {
		t.Errorf("ends: %v", ends)
	}
}

func TestRecordedSubjectsOfRequestsAndKill(t *testing.T) {
	var items []struct{ Subject string }
	readRecorded(t, "requests.json", &items)
	built := []string{SubjectJobTail("pc-01"), SubjectPing("pc-01"), SubjectLogsFetch("pc-01"), SubjectLogsFetch("pc-01")}
	for i, item := range items {
		if item.Subject != built[i] {
			t.Errorf("recorded %s, built %s", item.Subject, built[i])
		}
	}
	items = nil
	readRecorded(t, "kill.json", &items)
	if got := SubjectKill("03a1eb94-bbdb-4695-8d54-7818dff27b37"); items[0].Subject != got {
		t.Errorf("recorded %s, built %s", items[0].Subject, got)
	}
}

func TestRecordedDigests(t *testing.T) {
	var items []struct{ Meta struct{ Name, Digest string } }
	readRecorded(t, "objects.json", &items)
	hexes := map[string]string{}
	for _, item := range items {
		d, err := ParseDigest(item.Meta.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if got := FormatDigest(d); got != item.Meta.Digest {
			t.Errorf("%s becomes %s", item.Meta.Digest, got)
		}
		hexes[item.Meta.Name] = HexDigest(d)
	}
	for _, r := range recordings(t) {
		if r.kind != "command" {
			continue
		}
		if c, _ := DecodeCommand(r.data); c.ScriptObject != "" && hexes[c.ScriptObject] != c.ScriptObjectSHA256 {
			t.Errorf("%s: the store says %s, the command %s", c.ScriptObject, hexes[c.ScriptObject], c.ScriptObjectSHA256)
		}
	}
}
