package rest

import (
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"kanade/libs/bus"
	"kanade/libs/catalog"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/domain"
	"kanade/services/api/internal/journal"
)

// failure is an error with the status that it is answered with.
type failure struct {
	status   int
	sentence string
	problems []catalog.Problem
}

func (f *failure) Error() string { return f.sentence }

func fail(status int, sentence string) *failure { return &failure{status: status, sentence: sentence} }

// failureOf translates what the inner packages return. What it does not know is 500, and its text stays in the log.
func failureOf(err error) *failure {
	var f *failure
	var refused *domain.Refusal
	var tooLarge *http.MaxBytesError
	var unstorable *journal.TooLarge
	var other *otherLog
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &refused):
		return &failure{statusOf(refused.Code), refused.Sentence, refused.Problems}
	case errors.As(err, &tooLarge):
		return fail(http.StatusRequestEntityTooLarge, "the body is larger than the limit of "+strconv.FormatInt(tooLarge.Limit, 10)+" bytes")
	case errors.As(err, &unstorable):
		return fail(http.StatusRequestEntityTooLarge, "nothing was written: "+unstorable.Error())
	case errors.As(err, &other):
		return fail(http.StatusServiceUnavailable, other.Error())
	case errors.Is(err, bus.ErrLogFull):
		return fail(http.StatusServiceUnavailable,
			"the log is full and takes no new facts; nothing was written. Give the stream LOG room (its byte limit), then repeat the request")
	case errors.Is(err, bus.ErrUnavailable):
		return fail(http.StatusServiceUnavailable,
			"the broker can't be reached or does not answer in time; whether anything was written is unknown. Repeat the request, with the same Idempotency-Key")
	case errors.Is(err, journal.ErrContended):
		return fail(http.StatusServiceUnavailable, "other writers keep changing it; nothing was written. Repeat the request")
	case errors.Is(err, readmodel.ErrNoModel):
		return fail(http.StatusServiceUnavailable, "there is no read model yet: no projector has written one. Start a projector, or repeat the request")
	case errors.Is(err, readmodel.ErrBehind):
		return fail(http.StatusServiceUnavailable, "the read model has not come as far as asked for in time: "+err.Error())
	case errors.Is(err, readmodel.ErrCursor):
		return fail(http.StatusBadRequest, "cursor: "+err.Error()+". Take the one of the link to the next page, whole, with the same path")
	case errors.Is(err, readmodel.ErrNotFound), errors.Is(err, bus.ErrNotFound):
		return fail(http.StatusNotFound, "not found")
	case errors.Is(err, context.Canceled):
		return fail(statusGone, "the client is gone")
	default:
		return fail(http.StatusInternalServerError, "internal error; the log of the API says more")
	}
}

// statusGone is what logs and metrics show for a request whose client did not wait.
const statusGone = 499

func statusOf(c domain.Code) int {
	switch c {
	case domain.Unprocessable:
		return http.StatusUnprocessableEntity
	case domain.NotFound:
		return http.StatusNotFound
	case domain.Conflict:
		return http.StatusConflict
	case domain.Precondition:
		return http.StatusPreconditionFailed
	default:
		return http.StatusBadRequest
	}
}

// problem is the body of RFC 9457.
type problem struct {
	Type     string         `json:"type"`
	Title    string         `json:"title"`
	Status   int            `json:"status"`
	Detail   string         `json:"detail"`
	Instance string         `json:"instance"`
	Errors   []problemPlace `json:"errors,omitempty"`
}

type problemPlace struct {
	Path    string `json:"path"`
	Line    int    `json:"line,omitempty"`
	Message string `json:"message"`
}

// writeFailure answers with a failure, in the form that the client accepts.
func writeFailure(w http.ResponseWriter, r *http.Request, f *failure) {
	h := w.Header()
	switch f.status {
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", "1")
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	}
	if !acceptsJSON(r.Header.Values("Accept")) {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(f.status)
		_, _ = w.Write([]byte(f.sentence))
		return
	}
	p := problem{
		Type: "about:blank", Title: http.StatusText(f.status), Status: f.status, Detail: f.sentence, Instance: r.URL.EscapedPath(),
	}
	for _, x := range f.problems {
		p.Errors = append(p.Errors, problemPlace{x.Path, x.Line, x.Message})
	}
	h.Set("Content-Type", "application/problem+json")
	w.WriteHeader(f.status)
	_ = json.NewEncoder(w).Encode(p)
}

// acceptsJSON tells whether a JSON type is named. "*/*" is what old CLIs and curl send; they print the text.
func acceptsJSON(accept []string) bool {
	for value := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		t, params, err := mime.ParseMediaType(value)
		if err == nil && isJSON(t) && params["q"] != "0" {
			return true
		}
	}
	return false
}

func isJSON(mediaType string) bool {
	return mediaType == "application/json" || strings.HasPrefix(mediaType, "application/") && strings.HasSuffix(mediaType, "+json")
}
