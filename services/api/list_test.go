package api

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

// pages follows the links of a list and gives the ids of its rows.
func (s *system) pages(path, id string) (ids []string) {
	s.t.Helper()
	for path != "" {
		a := s.read(path)
		var rows []map[string]any
		a.into(s.t, &rows)
		for _, row := range rows {
			ids = append(ids, row[id].(string))
		}
		path = ""
		if link := a.header.Get("Link"); link != "" {
			require.Regexp(s.t, `^<[^>]+>; rel="next"$`, link)
			path, _, _ = strings.Cut(link[1:], ">")
		}
	}
	return ids
}

func TestListsInPages(t *testing.T) {
	s := newSystem(t, parts{})
	zero, one := 0, 1
	s.job()
	s.write(http.MethodPost, "/api/jobs", strings.Replace(helloYAML, "id: hello", "id: other", 1), "Content-Type", "application/yaml")
	for n := range 3 {
		s.endpoint(fmt.Sprintf("pc-%d", n))
		s.write(http.MethodPost, "/api/schedules", fmt.Sprintf(`{"id":"s%d","when":{"calendar":{"at":"09:00"}},"job_id":"hello","target":{"all":true}}`, n))
	}
	var execs []execAnswer
	for range 3 {
		execs = append(execs, s.exec("hello", `{"target":{"all":true}}`))
	}
	e := execs[0]
	s.plan(e.ExecID, "pc-0", "pc-1", "pc-2")
	s.run(runOf(e, "pc-0"), events.StateSucceeded, &zero, events.Output{Text: "all is well\n", Bytes: 12})
	s.run(runOf(e, "pc-1"), events.StateFailed, &one, events.Output{Text: "no \"space\", left", Bytes: 17})
	s.run(runOf(e, "pc-2"), events.StateFailed, &one, events.Output{Text: "no \"space\", left", Bytes: 17})

	for path, id := range map[string]string{
		"/api/executions": "exec_id", "/api/executions/" + e.ExecID + "/targets": "pc_id", "/api/results": "result_id",
		"/api/agents": "pc_id", "/api/jobs": "id", "/api/schedules": "id", "/api/audit": "event_id",
	} {
		whole := s.pages(path, id)
		require.GreaterOrEqual(t, len(whole), 2, path)
		require.Equal(t, whole, s.pages(path+"?limit=1", id), path)
		require.Empty(t, s.pages(path+"?limit=0", id), path)
		bad := s.read(path+"?cursor=nonsense", "Accept", "application/json")
		require.Equal(t, http.StatusBadRequest, bad.status, path)
		require.Contains(t, bad.text(), "cursor: ", path)
	}
	require.Equal(t, []string{"pc-0", "pc-1", "pc-2"}, s.pages("/api/agents?order=pc_id&limit=2", "pc_id"))
	require.Equal(t, http.StatusBadRequest, s.read("/api/agents?order=name").status)
	require.Equal(t, "2", s.read("/api/jobs?limit=1").header.Get("X-Total-Count"))
	require.Equal(t, "3", s.read("/api/schedules").header.Get("X-Total-Count"))
	require.Equal(t, "3", s.read("/api/results?limit=1&job_id=%5Ehello%24").header.Get("X-Total-Count"))
	require.Equal(t, "2", s.read("/api/results?status=failure").header.Get("X-Total-Count"))
	require.Empty(t, s.read("/api/results?pc_id=pc").header.Get("X-Total-Count"), "that would have to be counted")

	var groups []struct {
		Count         int
		PCs           []string
		State, Stdout string
	}
	a := s.read("/api/results/groups?exec_id=" + e.ExecID)
	a.into(t, &groups)
	require.Equal(t, "3", a.header.Get("Kanade-Grouped"))
	require.Len(t, groups, 2)
	require.Equal(t, []any{2, []string{"pc-1", "pc-2"}, "failed"}, []any{groups[0].Count, groups[0].PCs, groups[0].State})
	s.read("/api/results/groups?job_id=hello&status=success&limit=5").into(t, &groups)
	require.Len(t, groups, 1)
	for _, query := range []string{"", "?exec_id=a&job_id=b", "?job_id=a&status=x"} {
		require.Equal(t, http.StatusBadRequest, s.read("/api/results/groups"+query).status, query)
	}
}

// Words are written a moment after the rows.
func (s *system) searched() {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		return s.read("/api/results?q=x").header.Get("Kanade-Searched-Sequence") == fmt.Sprint(s.lastSeq())
	}, 5*time.Second, time.Millisecond)
}

func TestSearchAndExport(t *testing.T) {
	s := newSystem(t, parts{})
	zero := 0
	s.job()
	e := s.exec("hello", `{"target":{"pcs":["pc-0","pc-1"]}}`)
	text := "no \"space\",\nleft <here>"
	s.run(runOf(e, "pc-0"), events.StateSucceeded, &zero, events.Output{Text: text, Bytes: int64(len(text))})
	s.run(runOf(e, "pc-1"), "", nil, events.Output{})
	s.searched()
	require.Equal(t, []string{"pc-0"}, s.pages("/api/results?q=SPACE+lef*&job_id=hel", "pc_id"))
	require.Empty(t, s.pages("/api/results?q=space&pc_id=pc-1", "pc_id"))
	bad := s.read("/api/results?q=%22open")
	require.Equal(t, http.StatusBadRequest, bad.status)
	require.Contains(t, bad.text(), "q: ")

	table := s.read("/api/results?format=csv")
	require.Equal(t, "text/csv; charset=utf-8", table.header.Get("Content-Type"))
	rows, err := csv.NewReader(strings.NewReader(table.text())).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 3)
	require.Equal(t, []string{"stdout", text}, []string{rows[0][18], rows[2][18]})
	require.Equal(t, []string{"pc-1", "running", ""}, []string{rows[1][3], rows[1][6], rows[1][7]})

	var list []json.RawMessage
	s.read("/api/results").into(t, &list)
	lines := s.read("/api/results", "Accept", "application/x-ndjson")
	require.Equal(t, "application/x-ndjson", lines.header.Get("Content-Type"))
	require.Equal(t, fmt.Sprintf("%s\n%s\n", list[0], list[1]), lines.text())
	require.Equal(t, string(list[1])+"\n", s.read("/api/results?format=ndjson&status=success").text())
	require.Equal(t, string(list[0])+"\n", s.read("/api/results?format=ndjson&limit=1").text())
	require.Empty(t, s.read("/api/results?format=ndjson&pc_id=nobody").text())
	require.Len(t, strings.Split(s.read("/api/results?format=csv&pc_id=nobody").text(), "\n"), 2, "the head")
	for _, other := range []string{"/api/executions", "/api/audit", "/api/jobs", "/api/agents"} {
		a := s.read(other + "?format=csv")
		require.Equal(t, http.StatusBadRequest, a.status, "%s: %s", other, a.text())
		require.Contains(t, a.text(), `format: expected one of json, got "csv"`)
		require.Equal(t, http.StatusOK, s.read(other+"?format=json").status)
	}
	require.Equal(t, http.StatusBadRequest, s.read("/api/results?format=xml").status)
}
