package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"syscall"
)

// Unreachable says that no answer came: nobody listens, or the connection broke.
type Unreachable struct {
	// URL of the API.
	URL string
	Err error
}

func (e *Unreachable) Error() string {
	if errors.Is(e.Err, syscall.ECONNREFUSED) {
		return fmt.Sprintf("nothing listens at %s. Is kanade running? Start it with `kanade up`, or name another one with "+
			"--backend-url or KANADE_BACKEND_URL", e.URL)
	}
	return fmt.Sprintf("no answer from %s: %v", e.URL, e.Err)
}

func (e *Unreachable) Unwrap() error { return e.Err }

// Refused is an answer of the API that is not a success.
type Refused struct {
	// Method and Path of the request.
	Method, Path string
	Status       int
	// Detail is the API's sentence, or what is known without one.
	Detail   string
	Problems []Problem
	// Sequence is the LOG sequence that a read had seen; 0 when the API did not say.
	Sequence uint64
	// Hint says what to do next; empty where the detail says it.
	Hint string
}

// Problem is one thing wrong with a document.
type Problem struct {
	Path    string `json:"path"`
	Line    int    `json:"line"`
	Message string `json:"message"`
}

// String gives the problem as one sentence.
func (p Problem) String() string {
	s := p.Message
	if p.Path != "" {
		s = p.Path + ": " + s
	}
	if p.Line > 0 {
		s += fmt.Sprintf(" (line %d)", p.Line)
	}
	return s
}

func (e *Refused) Error() string {
	s := e.Detail
	if len(e.Problems) > 0 {
		sentences := make([]string, len(e.Problems))
		for i, p := range e.Problems {
			sentences[i] = p.String()
		}
		s = strings.Join(sentences, "; ")
	}
	s += fmt.Sprintf(" (%d %s)", e.Status, http.StatusText(e.Status))
	if e.Hint != "" {
		s += ". " + e.Hint
	}
	return s
}

// Temporary reports whether the same request may be granted later.
func (e *Refused) Temporary() bool {
	return e.Status == http.StatusTooManyRequests || e.Status >= 500 && e.Status != http.StatusNotImplemented
}

// maxRefusal bounds how much of a refusal is read, in bytes.
const maxRefusal = 64 << 10

func (c *Client) refused(r Request, res *http.Response) *Refused {
	e := &Refused{Method: r.Method, Path: r.Path, Status: res.StatusCode, Sequence: sequenceOf(res.Header)}
	body, _ := io.ReadAll(io.LimitReader(res.Body, maxRefusal)) // what could be read is all there is to say
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	switch {
	case strings.HasSuffix(kind, "json"):
		var p struct {
			Title  string    `json:"title"`
			Detail string    `json:"detail"`
			Errors []Problem `json:"errors"`
		}
		if json.Unmarshal(body, &p) == nil {
			e.Detail, e.Problems = p.Detail, p.Errors
			if e.Detail == "" {
				e.Detail = p.Title
			}
		}
	case kind != "text/html":
		e.Detail = strings.TrimSpace(string(body))
	}
	if e.Detail == "" {
		e.Detail = fmt.Sprintf("%s %s was refused", r.Method, r.Path)
	}
	e.Hint = c.hint(e.Status)
	return e
}

func (c *Client) hint(status int) string {
	switch {
	case status == http.StatusUnauthorized && c.token == "":
		return "No token was sent: set KANADE_AUTH_TOKEN or KANADE_AUTH_TOKEN_FILE (`kanade up` names its file)"
	case status == http.StatusUnauthorized:
		return fmt.Sprintf("The token came from %s; is it the one of %s?", c.tokenSource, c.base)
	case status == http.StatusServiceUnavailable:
		return "Try again in a moment; " + c.base + "/readyz says what is missing"
	}
	return ""
}
