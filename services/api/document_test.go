package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/catalog"
	"kanade/libs/events"
)

func TestJobDocument(t *testing.T) {
	s := newSystem(t, parts{})
	first := s.job()
	var saved struct {
		ID, Version, Hash string
		Description       *string
		Inventory         bool
		Sequence          uint64
	}
	first.into(t, &saved)
	require.Equal(t, "says hello", *saved.Description)
	require.Equal(t, first.sequence(t), saved.Sequence)
	tag := `"` + saved.Hash + `"`
	require.Equal(t, tag, first.header.Get("ETag"))

	before := s.lastSeq()
	require.Equal(t, saved.Sequence, s.job().sequence(t), "a save that changes nothing answers what is stored")
	require.Equal(t, before, s.lastSeq())
	require.Greater(t, s.write(http.MethodPost, "/api/jobs", "# a comment\n"+helloYAML, "Content-Type", yamlType).sequence(t), before, "a comment is part of the text")

	got := s.read("/api/jobs/hello")
	require.Equal(t, tag, got.header.Get("ETag"))
	require.True(t, strings.HasPrefix(got.text(), `{"id":"hello","version":"1.0.0"`))
	require.Equal(t, http.StatusNotModified, s.read("/api/jobs/hello", "If-None-Match", tag).status)
	require.Equal(t, "# a comment\n"+helloYAML, s.read("/api/jobs/hello/yaml").text())

	before = s.lastSeq()
	other := strings.Replace(helloYAML, "1.0.0", "1.0.1", 1)
	stale := s.do(http.MethodPost, "/api/jobs", other, "Content-Type", yamlType, "If-Match", `"0000"`)
	require.Equal(t, http.StatusPreconditionFailed, stale.status)
	require.Contains(t, stale.text(), "has changed")
	require.Equal(t, http.StatusPreconditionFailed, s.do(http.MethodDelete, "/api/jobs/hello", "", "If-Match", `"0000"`).status)
	require.Equal(t, http.StatusPreconditionFailed, s.do(http.MethodDelete, "/api/jobs/none", "", "If-Match", "*").status)
	there := s.do(http.MethodPost, "/api/jobs", other, "Content-Type", yamlType, "If-None-Match", "*")
	require.Equal(t, http.StatusPreconditionFailed, there.status)
	require.Contains(t, there.text(), "is there already")
	require.Equal(t, before, s.lastSeq())
	s.write(http.MethodPost, "/api/jobs", other, "Content-Type", yamlType, "If-Match", `"0000", `+tag)

	deleted := s.write(http.MethodDelete, "/api/jobs/hello", "")
	require.Equal(t, http.StatusNoContent, deleted.status)
	require.Equal(t, http.StatusNotFound, s.read("/api/jobs/hello").status)
	require.Equal(t, http.StatusNotFound, s.read("/api/jobs/hello/yaml").status, "the text goes with its document")
	require.Equal(t, http.StatusNotFound, s.do(http.MethodPost, "/api/exec/hello", `{"target":{"all":true}}`).status)
	before = s.lastSeq()
	require.Equal(t, deleted.sequence(t), s.write(http.MethodDelete, "/api/jobs/hello", "").sequence(t))
	require.Equal(t, uint64(0), s.write(http.MethodDelete, "/api/jobs/never", "").sequence(t))
	require.Equal(t, before, s.lastSeq())
}

func TestIDsWithSlashes(t *testing.T) {
	s := newSystem(t, parts{})
	s.write(http.MethodPost, "/api/jobs", strings.Replace(helloYAML, "id: hello", "id: a/b=c", 1), "Content-Type", yamlType)
	require.Equal(t, http.StatusOK, s.read("/api/jobs/a%2Fb=c").status)
	require.Equal(t, http.StatusNotFound, s.read("/api/jobs/a/b=c").status)
	require.Equal(t, "a/b=c", s.exec("a%2Fb=c", `{"target":{"pcs":["x/y"]}}`).JobID)
	require.Equal(t, http.StatusNoContent, s.write(http.MethodDelete, "/api/jobs/a%2Fb=c", "").status)
}

func TestJobAsJSON(t *testing.T) {
	s := newSystem(t, parts{})
	s.write(http.MethodPost, "/api/jobs", `{"id":"j","version":"1","execute":{"shell":"sh","script":"echo","timeout":"1s"}}`)
	yaml := s.read("/api/jobs/j/yaml")
	require.Equal(t, "application/yaml", yaml.header.Get("Content-Type"))
	require.Contains(t, yaml.text(), "id: j\n")
	before := s.read("/api/jobs/j").header.Get("ETag")
	s.write(http.MethodPost, "/api/jobs", yaml.text(), "Content-Type", yamlType)
	require.Equal(t, before, s.read("/api/jobs/j").header.Get("ETag"), "the made text gives the same document")
}

const nightlyYAML = "# nightly\nid: nightly\njob_id: hello\nenabled: true # on\nwhen: {calendar: {at: \"02:30\"}}\ntarget: {all: true}\ntz: utc\n"

func TestScheduleDocument(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	var saved map[string]any
	s.write(http.MethodPost, "/api/schedules", nightlyYAML, "Content-Type", yamlType).into(t, &saved)
	require.Equal(t, "at 02:30", saved["when"])

	named := s.do(http.MethodDelete, "/api/jobs/hello", "")
	require.Equal(t, http.StatusConflict, named.status)
	require.Equal(t, "job 'hello' is referenced by schedule 'nightly'; remove the schedule first", named.text())

	off := s.write(http.MethodPost, "/api/schedules/nightly/disable?cascade=false&cascade_kill=false", "")
	require.Equal(t, http.StatusNoContent, off.status)
	require.Equal(t, strings.Replace(nightlyYAML, "enabled: true # on", "enabled: false", 1), s.read("/api/schedules/nightly/yaml").text())
	require.Equal(t, false, s.read("/api/schedules/nightly").json(t).(map[string]any)["enabled"])
	before := s.lastSeq()
	require.Equal(t, off.sequence(t), s.write(http.MethodPost, "/api/schedules/nightly/disable", "").sequence(t))
	require.Equal(t, before, s.lastSeq(), "disabling a disabled one appends nothing")

	// A tick lies after the document; the document is still found, and an append still knows the aggregate's end.
	tick := events.ScheduleTicked{
		ID: "nightly", ScheduleSequence: off.sequence(t), Outcome: events.TickSkipped, Reason: events.TickReasonDisabled,
		From: time.Date(2026, 1, 1, 2, 30, 0, 0, time.UTC), To: time.Date(2026, 1, 2, 2, 30, 0, 0, time.UTC), Count: 2,
	}
	s.append(tick)
	s.write(http.MethodPost, "/api/schedules/nightly/enable", "")
	var ticks []map[string]any
	s.read("/api/schedules/nightly/ticks").into(t, &ticks)
	require.Equal(t, "2026-01-01T02:30:00Z", ticks[0]["nominal"])
	require.Equal(t, 2.0, ticks[0]["count"])
	require.Equal(t, "disabled", ticks[0]["reason"])

	s.append(events.InstallationSaved{ID: events.InstallationID, Zone: "Europe/Berlin"})
	var due []struct{ At, Local, Note string }
	s.read("/api/schedules/nightly/preview?count=3").into(t, &due)
	require.Len(t, due, 3)
	require.Equal(t, "02:30:00Z", due[0].At[11:])
	s.write(http.MethodPost, "/api/schedules", strings.Replace(nightlyYAML, "tz: utc\n", "", 1), "Content-Type", yamlType)
	s.read("/api/schedules/nightly/preview").into(t, &due)
	require.Contains(t, due[0].Local, "T02:30:00+0")
	require.Len(t, due, 5)

	require.Equal(t, http.StatusNoContent, s.write(http.MethodDelete, "/api/schedules/nightly", "").status)
	require.Equal(t, http.StatusNotFound, s.read("/api/schedules/nightly").status)
	require.Equal(t, http.StatusOK, s.read("/api/schedules/nightly/ticks").status, "ticks outlive their schedule")
	require.Equal(t, http.StatusNotFound, s.read("/api/schedules/never/ticks").status)
	require.Equal(t, http.StatusNoContent, s.write(http.MethodDelete, "/api/jobs/hello", "").status)
}

func TestGroups(t *testing.T) {
	s := newSystem(t, parts{})
	require.JSONEq(t, `{"groups":[]}`, s.read("/api/agents/pc-01/groups").text(), "nobody knows it")
	require.JSONEq(t, `{"groups":["a","b"]}`, s.write(http.MethodPut, "/api/agents/pc-01/groups", `{"groups":["b","a","b"]}`).text())
	before := s.lastSeq()
	same := s.write(http.MethodPost, "/api/agents/pc-01/groups", `{"group":"a"}`)
	require.Equal(t, before, same.sequence(t))
	require.Equal(t, before, s.lastSeq())
	s.write(http.MethodDelete, "/api/agents/pc-01/groups/none", "")
	require.Equal(t, before, s.lastSeq())
	s.endpoint("pc-01")
	s.endpoint("pc-02")
	s.write(http.MethodPost, "/api/agents/pc-02/groups", `{"group":"a"}`)
	require.JSONEq(t, `{"groups":["b"]}`, s.write(http.MethodDelete, "/api/agents/pc-01/groups/a", "").text())
	require.JSONEq(t, `{"groups":[{"name":"a","members":["pc-02"],"has_config":false},{"name":"b","members":["pc-01"],"has_config":false}]}`,
		s.read("/api/groups").text())
	var agents []map[string]any
	s.read("/api/agents?q=PC-01").into(t, &agents)
	require.Len(t, agents, 1)
	require.Equal(t, []any{"b"}, agents[0]["groups"])
	require.Equal(t, true, agents[0]["alive"])
	require.Equal(t, "host-pc-01", agents[0]["hostname"])
	s.job()
	require.Equal(t, 2, s.exec("hello", `{"target":{"groups":["a"],"pcs":["pc-01","pc-02"]}}`).TargetCount)
}

// TestWritersAtOnce: many clients change one endpoint's groups, each its own; none is lost.
func TestWritersAtOnce(t *testing.T) {
	s := newSystem(t, parts{noProjector: true})
	const writers = 8
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			a, err := s.try(t.Context(), http.MethodPost, "/api/agents/pc-01/groups", fmt.Sprintf(`{"group":"g%d"}`, i))
			if err != nil || a.status != http.StatusOK {
				t.Errorf("%v %d %s", err, a.status, a.body)
			}
		})
	}
	all.Wait()
	var got struct{ Groups []string }
	s.write(http.MethodPost, "/api/agents/pc-01/groups", `{"group":"g0"}`).into(t, &got)
	require.Len(t, got.Groups, writers)
}

func TestOutput(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	e := s.exec("hello", `{"target":{"pcs":["pc-01"]}}`)
	whole := strings.Repeat("0123456789", 10_000)
	require.NoError(t, s.bus.PutObject(t.Context(), events.StoreResultOutput, "r1/stdout", strings.NewReader(whole)))
	zero := 0
	for _, object := range []string{"r1/stdout", "r2/gone"} {
		id, _, _ := strings.Cut(object, "/")
		s.run(events.Run{PCID: "pc-01", ExecID: e.ExecID, RequestID: id, ResultID: id, JobID: "hello"}, events.StateSucceeded, &zero,
			events.Output{Text: "01 … 89", Bytes: 100_000, Truncated: true, Object: object})
	}
	require.Equal(t, whole, s.read("/api/results/r1/output/stdout").text())
	require.Equal(t, "", s.read("/api/results/r1/output/stderr").text())
	gone := s.read("/api/results/r2/output/stdout")
	require.Equal(t, http.StatusNotFound, gone.status)
	require.Contains(t, gone.text(), "kept no longer")
	require.Equal(t, http.StatusNotFound, s.read("/api/results/r1/output/stdin").status)
	var result map[string]any
	s.read("/api/results/r1").into(t, &result)
	require.Equal(t, "01 … 89", result["stdout"])
	require.Equal(t, 100_000.0, result["stdout_bytes"])
}

func TestMetricsNameRoutesByTemplate(t *testing.T) {
	s := newSystem(t, parts{})
	s.read("/api/jobs/some-id")
	s.do("BREW", "/api/jobs", "")
	text := s.read("/metrics").text()
	require.Contains(t, text, `kanade_http_requests_total{method="GET",route="/api/jobs/{id}",status="404"} 1`)
	require.Contains(t, text, `kanade_http_requests_total{method="other",route="/api/jobs",status="405"} 1`)
	require.NotContains(t, text, "some-id")
}

// TestTraceGoesOn: the client's trace is in the envelope of what its request left.
func TestTraceGoesOn(t *testing.T) {
	s := newSystem(t, parts{noProjector: true})
	const trace = "0af7651916cd43dd8448eb211c80319c"
	seq := s.write(http.MethodPost, "/api/jobs", helloYAML, "Content-Type", yamlType, "traceparent", "00-"+trace+"-b7ad6b7169203331-01").sequence(t)
	m, ok, err := s.bus.Get(t.Context(), events.StreamLog, seq)
	require.NoError(t, err)
	require.True(t, ok)
	e, err := m.Event()
	require.NoError(t, err)
	require.Contains(t, e.TraceParent, trace)
	require.Equal(t, "/kanade/api", e.Source)
	var saved events.JobSaved
	require.NoError(t, json.Unmarshal(e.Data, &saved))
	require.Equal(t, helloYAML, saved.Source)
}

// TestStoredBytesAreHashed: the hash is over the bytes of the document as stored, whatever a script is full of.
func TestStoredBytesAreHashed(t *testing.T) {
	s := newSystem(t, parts{noProjector: true})
	seq := s.write(http.MethodPost, "/api/jobs", "id: x\nversion: \"1\"\nexecute: {shell: sh, script: \"a && b > c < d \u2028\", timeout: 1s}\n", "Content-Type", yamlType).sequence(t)
	m, _, err := s.bus.Get(t.Context(), events.StreamLog, seq)
	require.NoError(t, err)
	e, err := m.Event()
	require.NoError(t, err)
	var saved events.JobSaved
	require.NoError(t, json.Unmarshal(e.Data, &saved))
	require.Equal(t, saved.Hash, catalog.Hash(saved.Document), "%s", saved.Document)
}
