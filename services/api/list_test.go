package api

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
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
	column := func(key string) int { return slices.Index(rows[0], key) }
	require.Equal(t, text, rows[2][column("stdout")])
	require.Equal(t, []string{"pc-1", "running", ""}, []string{rows[1][column("pc_id")], rows[1][column("state")], rows[1][column("exit_code")]})

	var list []json.RawMessage
	s.read("/api/results").into(t, &list)
	lines := s.read("/api/results", "Accept", "application/x-ndjson")
	require.Equal(t, "application/x-ndjson", lines.header.Get("Content-Type"))
	require.Equal(t, fmt.Sprintf("%s\n%s\n", list[0], list[1]), lines.text())
	require.Equal(t, string(list[1])+"\n", s.read("/api/results?format=ndjson&status=success").text())
	require.Equal(t, string(list[0])+"\n", s.read("/api/results?format=ndjson&limit=1").text())
	require.Empty(t, s.read("/api/results?format=ndjson&pc_id=nobody").text())
	require.Len(t, strings.Split(s.read("/api/results?format=csv&pc_id=nobody").text(), "\n"), 2, "the head")
	require.Equal(t, http.StatusBadRequest, s.read("/api/results?format=xml").status)
}

// Each list that has pages says the same in each form, as of the same moment.
func TestExportOfEveryList(t *testing.T) {
	s := newSystem(t, parts{})
	s.buildPasts()
	zero, one := 0, 1
	s.job()
	s.write(http.MethodPut, "/api/calendars/holidays", `{"id":"holidays","days":["2026-12-24..2026-12-26","2027-01-01"]}`)
	s.schedule("nightly", "when: {calendar: {at: \"09:00\"}}\ncalendars: [holidays]")
	s.endpoint("pc-0")
	s.endpoint("pc-1")
	e := s.exec("hello", `{"target":{"pcs":["pc-0","pc-1"]}}`)
	s.plan(e.ExecID, "pc-0", "pc-1")
	s.run(runOf(e, "pc-0"), events.StateSucceeded, &zero, events.Output{Text: "said \"yes\",\nand <no>", Bytes: 23})
	s.run(runOf(e, "pc-1"), events.StateFailed, &one, events.Output{})
	s.exec("hello", `{"target":{"all":true}}`)
	at := time.Now().UTC().Truncate(time.Minute)
	for n := range 2 {
		s.append(events.ScheduleTicked{
			ID: "nightly", From: at.Add(time.Duration(n) * time.Hour), To: at.Add(time.Duration(n) * time.Hour), Count: 1,
			Outcome: events.TickSkipped, Reason: events.TickReasonFrozen,
		})
	}
	for n := range 2 {
		s.parked("projector", s.said("results.x", []byte{0xff, byte(n)}))
	}
	s.saw(s.lastSeq())

	for path, atLeast := range map[string]int{
		"/api/executions": 2, "/api/executions/" + e.ExecID + "/targets": 2, "/api/results": 2, "/api/agents?order=pc_id": 2,
		"/api/jobs": 1, "/api/schedules": 1, "/api/calendars": 1, "/api/schedules/nightly/ticks": 2, "/api/audit": 4, "/api/dead": 2,
		"/api/audit?action=exec": 2, "/api/results?status=failure": 1,
	} {
		as := func(form string) string {
			return path + map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")] + "format=" + form
		}
		var list []json.RawMessage
		page := s.read(path)
		page.into(t, &list)
		require.GreaterOrEqual(t, len(list), atLeast, path)

		lines := ""
		for _, row := range list {
			lines += string(row) + "\n"
		}
		whole := s.read(as("ndjson"))
		require.Equal(t, lines, whole.text(), path)
		require.Equal(t, page.header.Get("Kanade-Applied-Sequence"), whole.header.Get("Kanade-Applied-Sequence"), path)
		require.Equal(t, page.header.Get("X-Total-Count"), whole.header.Get("X-Total-Count"), path)
		require.Equal(t, string(list[0])+"\n", s.read(as("ndjson")+"&limit=1").text(), path)
		require.Equal(t, lines, s.read(path, "Accept", "text/html, application/x-ndjson").text(), path)
		require.Equal(t, page.text(), s.read(path, "Accept", "application/json, text/csv").text(), path)
		require.Equal(t, page.text(), s.read(path, "Accept", "text/csv;q=0.1, application/json").text(), path)
		require.Equal(t, page.text(), s.read(path, "Accept", "text/csv;q=0, */*").text(), path)
		require.Equal(t, lines, s.read(path, "Accept", "text/csv;q=0.1, application/x-ndjson;q=0.2, application/json;q=0.15").text(), path)

		table := s.read(as("csv"))
		require.Regexp(t, `^attachment; filename="[a-z]+\.csv"$`, table.header.Get("Content-Disposition"), path)
		records, err := csv.NewReader(strings.NewReader(table.text())).ReadAll()
		require.NoError(t, err, path)
		require.Len(t, records, 1+len(list), path)
		require.NotContains(t, records[0], "", path)
		require.Len(t, slices.Compact(slices.Sorted(slices.Values(records[0]))), len(records[0]), "%s: each column once", path)
		require.Equal(t, "Accept", table.header.Get("Vary"), path)
		for i, row := range list {
			var values map[string]any
			require.NoError(t, json.Unmarshal(row, &values))
			for j, key := range records[0] {
				require.Equal(t, cellOf(t, values[key]), cellAs(t, values[key], records[1+i][j]), "%s: %s", path, key)
				delete(values, key)
			}
			require.Empty(t, values, "%s: has no column", path)
		}
		head := s.do(http.MethodHead, as("csv"), "")
		require.Equal(t, []any{http.StatusOK, "text/csv; charset=utf-8", ""}, []any{head.status, head.header.Get("Content-Type"), head.text()}, path)
		require.Len(t, strings.Split(s.read(as("csv")+"&limit=0").text(), "\n"), 2, "%s: the head", path)
		for _, bad := range []string{"&cursor=nonsense", "&limit=-1", "&limit=x"} {
			require.Equal(t, http.StatusBadRequest, s.read(as("csv")+bad).status, path+bad)
		}
		require.Equal(t, http.StatusBadRequest, s.read(as("xml")).status, path)
	}
	past := s.do(http.MethodGet, "/api/executions?format=csv&as_of="+fmt.Sprint(e.Sequence), "")
	require.Len(t, strings.Split(past.text(), "\n"), 3, "the head and one: %s", past.text())
	require.Equal(t, http.StatusNotFound, s.read("/api/executions/nobody/targets?format=csv").status)
	require.Equal(t, http.StatusNotFound, s.read("/api/schedules/nobody/ticks?format=csv").status)
	require.Equal(t, http.StatusBadRequest, s.read("/api/schedules/nightly/coverage?format=csv").status, "an object")
	moving := s.read("/api/agents?format=csv&order=heard")
	require.Equal(t, http.StatusBadRequest, moving.status)
	require.Contains(t, moving.text(), `order: expected one of pc_id, got "heard"`)
}

// cellOf is what a cell of a table says, read from JSON.
func cellOf(t *testing.T, v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	}
	text, err := json.Marshal(v)
	require.NoError(t, err)
	return string(text)
}

// cellAs is a cell in the same form as cellOf has it.
func cellAs(t *testing.T, v any, cell string) string {
	if _, ok := v.(string); ok || v == nil {
		return cell
	}
	var value any
	require.NoError(t, json.Unmarshal([]byte(cell), &value), cell)
	return cellOf(t, value)
}

// An export is all rows, and a limit of it is of all rows, not of a page.
func TestExportIsWhole(t *testing.T) {
	s := newSystem(t, parts{})
	s.job()
	e := s.exec("hello", `{"target":{"all":true}}`)
	pcs := make([]string, 12_000)
	for i := range pcs {
		pcs[i] = fmt.Sprintf("pc-%05d", i)
	}
	s.plan(e.ExecID, pcs...)
	s.saw(s.lastSeq())
	path := "/api/executions/" + e.ExecID + "/targets"
	require.Equal(t, pcs, s.pages(path, "pc_id"))
	for limit, n := range map[string]int{"": 12_000, "&limit=0": 0, "&limit=1": 1, "&limit=500": 500, "&limit=501": 501, "&limit=11000": 11_000, "&limit=20000": 12_000} {
		records, err := csv.NewReader(strings.NewReader(s.read(path + "?format=csv" + limit).text())).ReadAll()
		require.NoError(t, err)
		require.Len(t, records, 1+n, limit)
		for i, record := range records[1:] {
			require.Equal(t, pcs[i], record[0])
		}
	}
}
