package api

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

func TestExecFromJobToResult(t *testing.T) {
	s := newSystem(t, parts{})
	s.endpoint("pc-01")
	s.endpoint("pc-02")
	s.job()
	e := s.exec("hello", `{"target":{"all":true}}`, "X-Kanade-Source", "cli")
	require.Equal(t, 2, e.TargetCount)
	require.Equal(t, []string{"commands.all"}, e.Subjects)
	require.Equal(t, "1.0.0", e.Version)

	s.plan(e.ExecID, "pc-01", "pc-02")
	zero := 0
	request := "8b86c84d-8db9-4b0a-b0a9-6a5d7563750e"
	run := events.Run{PCID: "pc-01", ExecID: e.ExecID, RequestID: request, ResultID: events.ResultID(request, "pc-01"), JobID: "hello", Version: "1.0.0"}
	s.run(run, events.StateSucceeded, &zero, events.Output{Text: "hello\n", Bytes: 6})

	var detail struct {
		Execution map[string]any
		Results   []map[string]any
	}
	s.read("/api/executions/"+e.ExecID).into(t, &detail)
	require.Equal(t, "running", detail.Execution["status"])
	require.Equal(t, 1.0, detail.Execution["success_count"])
	require.Equal(t, map[string]any{"expected": map[string]any{"expected": 1.0, "succeeded": 1.0}, "others": map[string]any{}}, detail.Execution["totals"])
	require.Nil(t, detail.Execution["outcome"])
	require.Equal(t, "user:service-token", detail.Execution["actor"])
	require.Len(t, detail.Results, 1)

	var targets []map[string]any
	page := s.read("/api/executions/" + e.ExecID + "/targets?limit=1")
	page.into(t, &targets)
	require.Equal(t, "succeeded", targets[0]["state"])
	require.Equal(t, "2", page.header.Get("X-Total-Count"))
	link := page.header.Get("Link")
	require.Regexp(t, "^</api/executions/"+e.ExecID+`/targets\?cursor=[-_A-Za-z0-9]+&limit=1>; rel="next"$`, link)
	next, _, _ := strings.Cut(link[1:], ">")
	other := s.read("/api/executions?" + strings.SplitN(next, "?", 2)[1])
	require.Equal(t, http.StatusBadRequest, other.status)
	require.Contains(t, other.text(), "cursor: ")
	last := s.read(next)
	last.into(t, &targets)
	require.Len(t, targets, 1)
	require.Empty(t, last.header.Get("Link"))

	var result map[string]any
	s.read("/api/results/"+run.ResultID).into(t, &result)
	require.Equal(t, "hello\n", result["stdout"])
	require.Equal(t, 0.0, result["exit_code"])
	require.Equal(t, http.StatusNotFound, s.read("/api/results/nope").status)
}
