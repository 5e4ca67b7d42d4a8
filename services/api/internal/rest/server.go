package rest

import (
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

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
	// History is how far back reads may go in the log's time, and how long execs live at most, counted from their request: a dry
	// run says so. 0 is for ever.
	History time.Duration
	// Stopping is closed when the service is about to end, for answers that would not end by themselves.
	Stopping <-chan struct{}
}

type server struct {
	Config
	journal *journal.Journal
	log     *sameLog
	// then is the past moment that Reader is of; none for the present one.
	then moment
}

// handler answers one method of one route. route is its path template. An error that it returns becomes the answer;
// nothing may have been written then.
type handler func(w http.ResponseWriter, r *http.Request, route string) error

// methods are the handlers of one path.
type methods map[string]handler

// Handler is the whole HTTP of the API.
func Handler(c Config) (http.Handler, error) {
	s := &server{Config: c, journal: journal.New(c.Bus), log: &sameLog{}}
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
		{"/api/version", methods{get: present(s.getVersion)}},

		{"/api/agents", methods{get: read((*server).listAgents)}},
		{"/api/agents/{pc_id}", methods{get: read((*server).getAgent)}},
		{"/api/agents/{pc_id}/groups", methods{get: read((*server).getAgentGroups), put: s.putAgentGroups, post: s.postAgentGroup}},
		{"/api/agents/{pc_id}/groups/{group}", methods{del: s.deleteAgentGroup}},
		{"/api/groups", methods{get: read((*server).listGroups)}},

		{"/api/jobs", methods{get: read((*server).listJobs), post: s.postJob}},
		{"/api/jobs/{id}", methods{get: read((*server).getJob), del: s.deleteJob}},
		{"/api/jobs/{id}/yaml", methods{get: read((*server).getJobYAML)}},
		{"/api/jobs/{id}/kill", methods{post: reasonedAct("id", s.killJobExecs)}},
		{"/api/scripts/status", methods{get: read((*server).getScripts)}},
		{"/api/scripts/{cmd_id}/revoke", methods{post: reasonedAct("cmd_id", s.journal.RevokeScript)}},
		{"/api/scripts/{cmd_id}/unrevoke", methods{post: reasonedAct("cmd_id", s.journal.UnrevokeScript)}},
		{"/api/script-objects", methods{get: present(s.listObjects)}},
		{"/api/script-objects/{name}/{version}", methods{get: present(s.getObject), post: s.postObject, del: s.deleteObject}},
		{"/api/calendars", methods{get: read((*server).listCalendars)}},
		{"/api/calendars/{id}", methods{get: read((*server).getCalendar), put: s.putCalendar, del: s.deleteCalendar}},
		{"/api/calendars/{id}/yaml", methods{get: read((*server).getCalendarYAML)}},
		{"/api/freeze", methods{get: read((*server).getFreeze), put: s.putFreeze, del: s.deleteFreeze}},

		{"/api/exec/{job_id}", methods{post: s.postExec}},
		{"/api/run", methods{post: s.postRun}},
		{"/api/executions", methods{get: read((*server).listExecutions)}},
		{"/api/executions/{exec_id}", methods{get: read((*server).getExecution)}},
		{"/api/executions/{exec_id}/targets", methods{get: read((*server).listTargets)}},
		{"/api/executions/{exec_id}/targets/{pc_id}/explain", methods{get: read((*server).getExplanation)}},
		{"/api/executions/{exec_id}/waves", methods{get: read((*server).listWaves)}},
		{"/api/executions/{exec_id}/failures", methods{get: read((*server).listFailures)}},
		{"/api/executions/{exec_id}/kill", methods{post: s.killExecution}},
		{"/api/executions/{exec_id}/cancel", methods{post: s.intent(s.journal.CancelExec)}},
		{"/api/executions/{exec_id}/pause", methods{post: s.intent(s.journal.PauseExec)}},
		{"/api/executions/{exec_id}/resume", methods{post: s.intent(s.journal.ResumeExec)}},
		{"/api/executions/{exec_id}/release", methods{post: s.releaseWave}},
		{"/api/executions/{exec_id}/retry", methods{post: s.retryExecution}},

		{"/api/results", methods{get: read((*server).listResults)}},
		{"/api/results/groups", methods{get: read((*server).listResultGroups)}},
		{"/api/results/{result_id}", methods{get: read((*server).getResult)}},
		{"/api/results/{result_id}/output/{stream}", methods{get: read((*server).getOutput)}},

		{"/api/schedules", methods{get: read((*server).listSchedules), post: s.postSchedule}},
		{"/api/schedules/upcoming", methods{get: read((*server).listUpcoming)}},
		{"/api/schedules/simulate", methods{post: read((*server).simulateDocument)}},
		{"/api/schedules/{id}", methods{get: read((*server).getSchedule), del: s.deleteSchedule}},
		{"/api/schedules/{id}/yaml", methods{get: read((*server).getScheduleYAML)}},
		{"/api/schedules/{id}/enable", methods{post: s.enableSchedule}},
		{"/api/schedules/{id}/disable", methods{post: s.disableSchedule}},
		{"/api/schedules/{id}/ticks", methods{get: read((*server).listTicks)}},
		{"/api/schedules/{id}/preview", methods{get: read((*server).previewSchedule)}},
		{"/api/schedules/{id}/simulate", methods{post: read((*server).simulateSchedule)}},
		{"/api/schedules/{id}/status", methods{get: read((*server).getScheduleStatus)}},
		{"/api/schedules/{id}/coverage", methods{get: read((*server).getCoverage)}},
		{"/api/schedules/{id}/run-now", methods{post: s.runScheduleNow}},
		{"/api/schedules/{id}/backfill", methods{post: s.backfillSchedule}},

		{"/api/audit", methods{get: read((*server).listAudit)}},

		{"/api/dead", methods{get: present(s.listDead)}},
		{"/api/dead/{seq}", methods{get: present(s.getDead)}},
		{"/api/dead/{seq}/retry", methods{post: s.retryDead}},

		{"/api/read-model", methods{get: present(s.getReadModel)}},
		{"/api/read-model/verify", methods{post: s.checkReadModel(false)}},
		{"/api/read-model/rebuild", methods{post: s.checkReadModel(true)}},

		{"/api/events/stream", methods{get: present(s.streamEvents)}},
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
		var err error
		if method != http.MethodGet {
			err = presentOnly(r)
		}
		if err == nil {
			err = h(w, r, path)
		}
		if broken, ok := errors.AsType[brokenOff](err); ok {
			level := slog.LevelWarn
			if r.Context().Err() != nil { // the client has what it wanted, or is gone
				level = slog.LevelDebug
			}
			s.Logger.Log(r.Context(), level, "an answer broke off", "method", r.Method, "path", r.URL.Path, "error", broken)
			panic(http.ErrAbortHandler) // a client could not tell it from a whole one; net/http knows no other way
		}
		if err != nil {
			f := failureOf(err)
			if f.status == http.StatusInternalServerError {
				s.Logger.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
			}
			writeFailure(w, r, f)
		}
	}))
}
