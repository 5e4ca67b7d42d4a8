package rest

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"kanade/libs/readmodel"
)

// query reads the declared parameters of a request; the first that can't be read is remembered, for err. Parameters that
// nobody declares are ignored, but for a route that says only.
type query struct {
	values url.Values
	err    error
}

func queryOf(r *http.Request) *query {
	values, err := url.ParseQuery(r.URL.RawQuery)
	q := &query{values: values}
	if err != nil {
		q.refuse("query", "can't be read: %v", err)
	}
	return q
}

func (q *query) refuse(name, format string, args ...any) {
	if q.err == nil {
		q.err = fail(http.StatusBadRequest, fmt.Sprintf(name+": "+format, args...))
	}
}

// only refuses every other parameter, for a route where ignoring one does what was not meant.
func (q *query) only(names ...string) {
	for _, name := range slices.Sorted(maps.Keys(q.values)) {
		if !slices.Contains(names, name) {
			q.refuse(name, "unknown parameter; there is %s", strings.Join(names, ", "))
		}
	}
}

// get is the one value of a parameter; false if it is not given.
func (q *query) get(name string) (string, bool) {
	v := q.values[name]
	if len(v) > 1 {
		q.refuse(name, "given twice")
	}
	if len(v) == 0 {
		return "", false
	}
	return v[0], true
}

func (q *query) text(name string) string {
	v, _ := q.get(name)
	return v
}

// number is a whole number of 32 bits without a sign; an empty one is an error.
func (q *query) number(name string, fallback int) int {
	v, ok := q.get(name)
	if !ok {
		return fallback
	}
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil {
		q.refuse(name, "expected a whole number, got %q", v)
	}
	return int(n)
}

// maxPage bounds a page of any list, in rows: who asks for more gets as many, and a link to the rest.
const maxPage = 10_000

// page is limit and cursor; fallback is the limit if it is not given.
func (q *query) page(fallback int) readmodel.Page {
	p := readmodel.Page{After: q.text("cursor"), Limit: fallback}
	if _, given := q.get("limit"); given {
		p.Limit = min(q.number("limit", 0), maxPage)
	}
	return p
}

// word is one of some words; the first of them if it is not given.
func (q *query) word(name string, words ...string) string {
	v, given := q.get(name)
	if !given {
		return words[0]
	}
	if !slices.Contains(words, v) {
		q.refuse(name, "expected one of %s, got %q", strings.Join(words, ", "), v)
	}
	return v
}

// sequence is a LOG sequence; false if it is not given.
func (q *query) sequence(name string) (uint64, bool) {
	v, ok := q.get(name)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(v, 10, 63)
	if err != nil {
		q.refuse(name, "expected a sequence number, got %q", v)
	}
	return n, true
}

// time is RFC 3339 with a zone; a blank may stand for the T.
func (q *query) time(name string) time.Time {
	v, ok := q.get(name)
	if !ok {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, strings.Replace(v, " ", "T", 1))
	if err != nil {
		q.refuse(name, "expected a time like 2026-01-31T08:00:00Z, got %q", v)
	}
	return t
}

// regex is a regular expression, see compileRegexp; nil when empty.
func (q *query) regex(name string) *regexp.Regexp {
	v := q.text(name)
	if v == "" {
		return nil
	}
	re, err := compileRegexp(v)
	if err != nil {
		q.refuse(name, "not a regular expression: %v", err)
	}
	return re
}

// flag is true or false; false if it is not given.
func (q *query) flag(name string) bool {
	v, given := q.get(name)
	if given && v != "true" && v != "false" {
		q.refuse(name, "expected true or false, got %q", v)
	}
	return v == "true"
}
