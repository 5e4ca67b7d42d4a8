package rest

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/gorilla/mux"

	"kanade/libs/catalog"
	"kanade/services/api/internal/domain"
	"kanade/services/api/internal/journal"
)

// Limits of a request. maxBody is that of a body, in bytes; a plan may have catalog.MaxPlan, an upload maxUpload.
const (
	maxBody   = 2 << 20
	maxKey    = 255
	maxOrigin = 128
)

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	return readBodyUpTo(w, r, maxBody)
}

func readBodyUpTo(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	if err != nil && !errors.As(err, &tooLarge) {
		return nil, fail(http.StatusBadRequest, "the body could not be read: "+err.Error())
	}
	return body, err
}

// readJSONBody reads the body of a route that takes JSON only.
func readJSONBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	return readJSONUpTo(w, r, maxBody)
}

func readJSONUpTo(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || !isJSON(t) {
		return nil, notJSON()
	}
	return readBodyUpTo(w, r, limit)
}

// readOptional reads the body of a route that can do without one into a struct, strictly.
func readOptional(w http.ResponseWriter, r *http.Request, into any) ([]byte, error) {
	if r.ContentLength == 0 {
		return nil, nil
	}
	body, err := readBody(w, r)
	if err != nil || len(body) == 0 {
		return nil, err
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || !isJSON(t) {
		return nil, notJSON()
	}
	return body, decodeJSON(body, into)
}

func notJSON() error {
	return fail(http.StatusUnsupportedMediaType, "the body must be JSON: send it with `Content-Type: application/json`")
}

// decodeJSON reads a body strictly into a struct: malformed 400, another shape or an unknown key 422 with its path.
func decodeJSON(body []byte, into any) error {
	err := json.Unmarshal(body, into, json.RejectUnknownMembers(true))
	var syntax *jsontext.SyntacticError
	var semantic *json.SemanticError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &syntax), !errors.As(err, &semantic):
		if len(strings.TrimSpace(string(body))) == 0 {
			return domain.Refuse(domain.Invalid, "not readable as JSON: the body is empty")
		}
		return domain.Refuse(domain.Invalid, "not readable as JSON: %s", strings.TrimPrefix(err.Error(), "jsontext: "))
	}
	path := strings.ReplaceAll(strings.TrimPrefix(string(semantic.JSONPointer), "/"), "/", ".")
	if errors.Is(err, json.ErrUnknownName) {
		return domain.RefuseField(domain.Unprocessable, path, "unknown key")
	}
	return domain.RefuseField(domain.Unprocessable, path, "has the wrong type")
}

// documentType is the language of a job's or schedule's body: YAML for the YAML types, JSON for everything else.
func documentType(r *http.Request) catalog.SourceType {
	t, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	switch strings.TrimSpace(t) {
	case "application/yaml", "text/yaml", "application/x-yaml", "text/x-yaml":
		return catalog.YAML
	}
	return catalog.JSON
}

// pathValue is a segment of the path, decoded.
func pathValue(r *http.Request, name string) (string, error) {
	v, err := url.PathUnescape(mux.Vars(r)[name])
	if err != nil || !utf8.ValidString(v) {
		return "", domain.RefuseField(domain.Invalid, name, "is not UTF-8")
	}
	return v, nil
}

// pathID is a segment that must be an id of a document, endpoint or group.
func pathID(r *http.Request, name string) (string, error) {
	v, err := pathValue(r, name)
	if err != nil {
		return "", err
	}
	return v, domain.CheckID(name, v)
}

// list is the value of a header that may come in several lines (RFC 9110, 5.3).
func list(r *http.Request, header string) string { return strings.Join(r.Header.Values(header), ",") }

// caller says who asks and under which conditions. route is the template, body what was sent.
func caller(r *http.Request, route string, body []byte) (journal.Caller, error) {
	c := journal.Caller{
		Actor: actorOf(r.Context()), Origin: strings.TrimSpace(r.Header.Get("X-Kanade-Source")),
		Route: r.Method + " " + route, Match: domain.Match{If: list(r, "If-Match"), IfNone: list(r, "If-None-Match")},
	}
	if len(c.Origin) > maxOrigin || !utf8.ValidString(c.Origin) {
		return c, fail(http.StatusBadRequest, fmt.Sprintf("X-Kanade-Source must be UTF-8 and not longer than the limit of %d bytes", maxOrigin))
	}
	if c.Key = r.Header.Get("Idempotency-Key"); len(c.Key) > maxKey || !utf8.ValidString(c.Key) {
		return c, fail(http.StatusBadRequest, fmt.Sprintf("Idempotency-Key must be UTF-8 and not longer than the limit of %d bytes", maxKey))
	}
	if c.Key != "" {
		c.BodyHash = journal.HashBody(body)
	}
	return c, nil
}
