package rest

import (
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"kanade/libs/bus"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/journal"
	"kanade/services/api/internal/live"
)

// Config is what the handlers work with.
type Config struct {
	Bus    *bus.Bus
	Reader *readmodel.Reader
	Hub    *live.Hub
	Logger *slog.Logger
	// Metrics gets the collectors of this package and is what /metrics shows.
	Metrics *prometheus.Registry
	// Token is what every request under /api/ must bear; it must not be empty.
	Token string
	// Version is what GET /api/version answers.
	Version string
	// Stopping is closed when the service is about to end, for answers that would not end by themselves.
	Stopping <-chan struct{}
}

type server struct {
	Config
	journal *journal.Journal
}

// handler answers one method of one route. route is its path template. An error that it returns becomes the answer;
// nothing may have been written then.
type handler func(w http.ResponseWriter, r *http.Request, route string) error

// methods are the handlers of one path.
type methods map[string]handler

// Handler is the whole HTTP of the API.
func Handler(c Config) (http.Handler, error) {
	s := &server{Config: c, journal: journal.New(c.Bus)}
	m, err := newMeter(c.Metrics)
	if err != nil {
		return nil, err
	}
	if err := newSlotMetrics(s).register(c.Metrics); err != nil {
		return nil, err
	}
	router := mux.NewRouter().UseEncodedPath().SkipClean(true)
	router.NotFoundHandler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writeFailure(w, r, fail(http.StatusNotFound, "no such path: "+r.URL.EscapedPath()))
	})
	for _, route := range s.routes() {
		router.Handle(route.path, s.dispatch(route.path, route.methods))
	}
	router.Handle("/metrics", named("/metrics", promhttp.HandlerFor(c.Metrics, promhttp.HandlerOpts{})))
	return s.observed(m, authenticated(c.Token, router)), nil
}

type route struct {
	path    string
	methods methods
}

// routes is the table of all routes; where two match, the first one counts.
func (s *server) routes() []route {
	const get, post, put, del = http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete
	read := s.reading
	return []route{
		{"/", methods{get: s.getPage}},
		{"/health", methods{get: getHealth}},
		{"/healthz", methods{get: getHealth}},
		{"/readyz", methods{get: s.getReady}},
		{"/api/version", methods{get: s.getVersion}},

		{"/api/agents", methods{get: read(s.listAgents)}},
		{"/api/agents/{pc_id}", methods{get: read(s.getAgent)}},
		{"/api/agents/{pc_id}/groups", methods{get: read(s.getAgentGroups), put: s.putAgentGroups, post: s.postAgentGroup}},
		{"/api/agents/{pc_id}/groups/{group}", methods{del: s.deleteAgentGroup}},
		{"/api/groups", methods{get: read(s.listGroups)}},

		{"/api/jobs", methods{get: read(s.listJobs), post: s.postJob}},
		{"/api/jobs/{id}", methods{get: read(s.getJob), del: s.deleteJob}},
		{"/api/jobs/{id}/yaml", methods{get: read(s.getJobYAML)}},
		{"/api/jobs/{id}/kill", methods{post: reasonedAct("id", s.killJobExecs)}},
		{"/api/scripts/status", methods{get: read(s.getScripts)}},
		{"/api/scripts/{cmd_id}/revoke", methods{post: reasonedAct("cmd_id", s.journal.RevokeScript)}},
		{"/api/scripts/{cmd_id}/unrevoke", methods{post: reasonedAct("cmd_id", s.journal.UnrevokeScript)}},
		{"/api/script-objects", methods{get: s.listObjects}},
		{"/api/script-objects/{name}/{version}", methods{get: s.getObject, post: s.postObject, del: s.deleteObject}},
		{"/api/freeze", methods{get: read(s.getFreeze), put: s.putFreeze, del: s.deleteFreeze}},

		{"/api/exec/{job_id}", methods{post: s.postExec}},
		{"/api/run", methods{post: s.postRun}},
		{"/api/executions", methods{get: read(s.listExecutions)}},
		{"/api/executions/{exec_id}", methods{get: read(s.getExecution)}},
		{"/api/executions/{exec_id}/targets", methods{get: read(s.listTargets)}},
		{"/api/executions/{exec_id}/targets/{pc_id}/explain", methods{get: read(s.getExplanation)}},
		{"/api/executions/{exec_id}/waves", methods{get: read(s.listWaves)}},
		{"/api/executions/{exec_id}/failures", methods{get: read(s.listFailures)}},
		{"/api/executions/{exec_id}/kill", methods{post: s.killExecution}},
		{"/api/executions/{exec_id}/cancel", methods{post: s.intent(s.journal.CancelExec)}},
		{"/api/executions/{exec_id}/pause", methods{post: s.intent(s.journal.PauseExec)}},
		{"/api/executions/{exec_id}/resume", methods{post: s.intent(s.journal.ResumeExec)}},
		{"/api/executions/{exec_id}/release", methods{post: s.releaseWave}},
		{"/api/executions/{exec_id}/retry", methods{post: s.retryExecution}},

		{"/api/results", methods{get: read(s.listResults)}},
		{"/api/results/groups", methods{get: read(s.listResultGroups)}},
		{"/api/results/{result_id}", methods{get: read(s.getResult)}},
		{"/api/results/{result_id}/output/{stream}", methods{get: read(s.getOutput)}},

		{"/api/schedules", methods{get: read(s.listSchedules), post: s.postSchedule}},
		{"/api/schedules/{id}", methods{get: read(s.getSchedule), del: s.deleteSchedule}},
		{"/api/schedules/{id}/yaml", methods{get: read(s.getScheduleYAML)}},
		{"/api/schedules/{id}/enable", methods{post: s.enableSchedule}},
		{"/api/schedules/{id}/disable", methods{post: s.disableSchedule}},
		{"/api/schedules/{id}/ticks", methods{get: read(s.listTicks)}},
		{"/api/schedules/{id}/preview", methods{get: read(s.previewSchedule)}},

		{"/api/audit", methods{get: read(s.listAudit)}},

		{"/api/dead", methods{get: s.listDead}},
		{"/api/dead/{seq}", methods{get: s.getDead}},
		{"/api/dead/{seq}/retry", methods{post: s.retryDead}},

		{"/api/read-model", methods{get: s.getReadModel}},
		{"/api/read-model/verify", methods{post: s.checkReadModel(false)}},
		{"/api/read-model/rebuild", methods{post: s.checkReadModel(true)}},

		{"/api/events/stream", methods{get: s.streamEvents}},
	}
}

// dispatch picks the handler of a method; HEAD is GET whose body net/http drops.
func (s *server) dispatch(path string, m methods) http.Handler {
	allowed := make([]string, 0, len(m)+1)
	for method := range m {
		allowed = append(allowed, method)
	}
	if m[http.MethodGet] != nil {
		allowed = append(allowed, http.MethodHead)
	}
	slices.Sort(allowed)
	allow := strings.Join(allowed, ", ")
	return named(path, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		h := m[method]
		if h == nil {
			w.Header().Set("Allow", allow)
			writeFailure(w, r, fail(http.StatusMethodNotAllowed, r.Method+" is not allowed here, only "+allow))
			return
		}
		if err := h(w, r, path); err != nil {
			f := failureOf(err)
			if f.status == http.StatusInternalServerError {
				s.Logger.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
			}
			writeFailure(w, r, f)
		}
	}))
}
