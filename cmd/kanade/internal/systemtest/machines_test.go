package systemtest

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/services/api"
	"kanade/services/projector"
)

// TestProveTwoMachines lets two machines, each with a projector, a read model of its own and an api over that, live through rollouts
// under trouble; the projector of the second one comes later, goes more often, and builds its file anew. When it is quiet both apis
// give the same answer, byte for byte and with the same headers, to every route that answers from the read model, in whole lists,
// in pages, and for every item that a list names: what is fed by PRESENCE as well.
func TestProveTwoMachines(t *testing.T) {
	long(t)
	theatres, seed := extent(t, 30, 1)
	var asked, bytes, restarts int
	for n := range theatres {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &machines{theatre: newTheatre(t, seed+uint64(n), 8), dir: t.TempDir(), templates: map[string]int{}}
				restarts += m.live()
				m.compare(readRoutes(t))
				asked, bytes = asked+m.asked, bytes+m.bytes
			})
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("PROVED %s: %d theatres, %d requests answered alike by two machines, %d bytes, %d restarts of the second projector, seed %d",
		t.Name(), theatres, asked, bytes, restarts, seed)
}

// machines are a theatre's site and another one like it on the same broker.
type machines struct {
	*theatre
	dir string
	far pipes
	// templates counts requests by the route that they are of.
	templates    map[string]int
	asked, bytes int
}

func (m *machines) startFar(rebuild bool) {
	m.run("projector-far", m.broker, func(ctx context.Context, b *bus.Bus) error {
		return projector.Run(ctx, projector.Config{ReadModelDir: m.dir, Rebuild: rebuild, MaxBatch: 7}, projector.Deps{Bus: b, Logger: quiet(m.t)})
	})
}

// live lets rollouts go their way, and everything else be there of which there is a list.
func (m *machines) live() (restarts int) {
	stop, stopped := make(chan struct{}), make(chan int)
	r := rand.New(rand.NewPCG(m.seed, 17))
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				stopped <- n
				return
			case <-time.After(time.Duration(20+r.IntN(40)) * time.Second):
			}
			b, err := bus.Connect(context.Background(), bus.Config{InProcess: m.broker, Token: bustest.Token, Name: "far", Logger: quiet(m.t)})
			if err != nil {
				continue // the broker is away
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(5+r.IntN(30))*time.Second)
			err = projector.Run(ctx, projector.Config{ReadModelDir: m.dir, Rebuild: n%4 == 3, MaxBatch: 1 + r.IntN(50)}, projector.Deps{Bus: b, Logger: quiet(m.t)})
			cancel()
			b.Close()
			if err != nil && ctx.Err() == nil {
				m.t.Errorf("the second projector: %v", err)
			}
		}
	}()
	m.perform()
	close(stop)
	restarts = <-stopped
	m.startFar(false)
	m.startAPI()
	listener := m.far.listen()
	m.run("api-far", m.broker, func(ctx context.Context, b *bus.Bus) error {
		return api.Run(ctx, api.Config{AuthToken: kitToken, ReadModelDir: m.dir}, api.Deps{Bus: b, Listener: listener, Logger: quiet(m.t)})
	})
	settle(time.Second)
	m.write(http.MethodPost, "/api/jobs", "id: other\nversion: \"2\"\nexecute: {shell: sh, timeout: 60s, script: play}\n", "Content-Type", "application/yaml")
	m.write(http.MethodPost, "/api/schedules", `{"id":"often","job_id":"other","when":{"cron":"*/2 * * * *"},"target":{"groups":["g0"]}}`)
	m.write(http.MethodPut, "/api/calendars/holidays", `{"id":"holidays","days":["2000-12-25"]}`)
	m.write(http.MethodPost, "/api/schedules", `{"id":"never","job_id":"job","enabled":false,"when":{"calendar":{"at":"02:30"}},"target":{"all":true}}`)
	settle(9 * time.Minute)
	m.write(http.MethodPut, "/api/freeze", `{"reason":"a look at it"}`)
	m.write(http.MethodPost, "/api/scripts/other/revoke", `{"reason":"too often"}`)
	m.write(http.MethodPut, "/api/agents/pc-00/groups", `{"groups":["g9"]}`)
	m.cut("pc-07") // known, and away
	settle(5 * time.Minute)
	return restarts
}

// readRoutes are the templates of all routes that answer from the read model, as the api's table of routes has them.
func readRoutes(t *testing.T) (templates []string) {
	text, err := os.ReadFile("../../../../services/api/internal/rest/server.go")
	require.NoError(t, err)
	for _, found := range regexp.MustCompile(`\{"(/api/[^"]*)", methods\{get: read\(`).FindAllStringSubmatch(string(text), -1) {
		templates = append(templates, found[1])
	}
	require.Greater(t, len(templates), 20)
	return templates
}

// items of a list.
func (m *machines) items(template, id string) (ids []string) {
	for _, row := range m.rows(template, template) {
		ids = append(ids, fmt.Sprint(row[id]))
	}
	require.NotEmpty(m.t, ids, template)
	return ids
}

func (m *machines) rows(template, path string) (rows []map[string]any) {
	require.NoError(m.t, json.Unmarshal(m.same(template, path), &rows), path)
	return rows
}

// same asks both apis, and gives what they say.
func (m *machines) same(template, path string) []byte {
	text, _ := m.sameAnswer(template, path)
	return text
}

func (m *machines) sameAnswer(template, path string) ([]byte, http.Header) {
	m.t.Helper()
	type answer struct {
		text, err string
		header    http.Header
	}
	ask := func(p *pipes) (a answer) {
		text, header, err := p.try(http.MethodGet, path, "", "Kanade-Min-Sequence", strconv.FormatUint(m.seen, 10))
		if err != nil {
			a.err = err.Error()
		}
		a.text, a.header = string(text), header
		return a
	}
	near, far := ask(&m.api), ask(&m.far)
	require.Equal(m.t, near, far, path)
	require.NotContains(m.t, near.err, ": 5", path)
	m.templates[template]++
	m.asked, m.bytes = m.asked+1, m.bytes+len(near.text)
	return []byte(near.text), near.header
}

// pages reads a list as a whole and in pages of 3, which together are the whole.
func (m *machines) pages(template, path string) {
	var whole, parts []json.RawMessage
	require.NoError(m.t, json.Unmarshal(m.same(template, path+"limit=10000"), &whole), path)
	for next := path + "limit=3"; next != ""; {
		text, header := m.sameAnswer(template, next)
		var page []json.RawMessage
		require.NoError(m.t, json.Unmarshal(text, &page), next)
		parts, next = append(parts, page...), ""
		if link := header.Get("Link"); link != "" {
			next, _, _ = strings.Cut(link[1:], ">")
		}
	}
	require.Equal(m.t, whole, parts, path)
}

// compare asks for everything.
func (m *machines) compare(templates []string) {
	execs, pcs := m.items("/api/executions", "exec_id"), m.items("/api/agents", "pc_id")
	jobs, schedules := m.items("/api/jobs", "id"), m.items("/api/schedules", "id")
	results := m.items("/api/results", "result_id")
	for _, list := range []string{
		"/api/executions?", "/api/executions?status=completed&", "/api/executions?job_id=other&", "/api/agents?order=pc_id&", "/api/jobs?", "/api/schedules?",
		"/api/results?", "/api/results?status=failure&", "/api/results?pc_id=%5Epc-03%24&", "/api/audit?", "/api/audit?action=exec&", "/api/schedules/often/ticks?",
	} {
		template, _, _ := strings.Cut(list, "?")
		m.pages(strings.Replace(template, "/often/", "/{id}/", 1), list)
	}
	heard := 0
	for _, row := range m.rows("/api/agents", "/api/agents") {
		if row["alive"] == true {
			heard++
		}
	}
	require.Equal(m.t, len(pcs)-1, heard, "what PRESENCE says")
	items := map[string][]string{
		"{exec_id}": execs[:min(12, len(execs))], "{result_id}": results[:min(12, len(results))], "{job}": jobs, "{schedule}": schedules, "{calendar}": {"holidays"},
		"{stream}": {"stdout", "stderr"}, "{pc_id}": pcs,
	}
	queries := map[string][]string{
		"/api/results/groups": {"?exec_id=" + execs[0], "?job_id=job", "?job_id=other&status=success"},
		"/api/results":        {"", "?q=play", "?format=csv", "?format=ndjson&status=failure"},
	}
	for _, template := range templates {
		named := template
		for of, kind := range map[string]string{"/api/jobs/": "{job}", "/api/schedules/": "{schedule}", "/api/calendars/": "{calendar}"} {
			if strings.HasPrefix(template, of) {
				named = strings.Replace(template, "{id}", kind, 1)
			}
		}
		for _, path := range expand([]string{named}, items) {
			require.NotContains(m.t, path, "{", "what is %s of %s?", path, template)
			if queries[template] == nil {
				m.same(template, path)
			}
			for _, q := range queries[template] {
				m.same(template, path+q)
			}
		}
	}
	for _, template := range templates {
		require.Positive(m.t, m.templates[template], "%s is asked for by nobody", template)
	}
}

// expand puts every item in the place of its kind.
func expand(paths []string, items map[string][]string) []string {
	for kind, ids := range items {
		var all []string
		for _, p := range paths {
			if !strings.Contains(p, kind) {
				all = append(all, p)
				continue
			}
			for _, id := range ids {
				all = append(all, strings.Replace(p, kind, url.PathEscape(id), 1))
			}
		}
		paths = all
	}
	slices.Sort(paths)
	return paths
}
