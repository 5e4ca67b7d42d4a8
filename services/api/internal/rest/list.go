package rest

import (
	"context"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"kanade/libs/readmodel"
)

// Lists that have pages are read and answered here: as a page, a JSON array, or as a whole, see export.

// form is how a list is written.
type form string

// The forms: JSON is a page of the list, the others are the whole of it, row by row.
const (
	formJSON   form = "json"
	formCSV    form = "csv"
	formNDJSON form = "ndjson"
)

// listing is what a request wants of a list: its form, where it begins, and how many rows at most, of a page or of all.
type listing struct {
	form
	readmodel.Page
}

// pageReader reads a page of a list. It may be short, even empty, and have a next one: that is what the cursor says.
type pageReader[R any] func(context.Context, readmodel.Page) (rows []R, next string, err error)

// rowsOf makes what the read model gives rows of an answer.
func rowsOf[M, R any](page []M, next string, err error, row func(*M) R) ([]R, string, error) {
	rows := make([]R, len(page))
	for i := range page {
		rows[i] = row(&page[i])
	}
	return rows, next, err
}

// list reads the parameters format, or else the header Accept where it names a form (the one it wants most, of equals the
// first), limit and cursor. Without a limit a
// page has so many rows, and an export all of them.
func (q *query) list(r *http.Request, page int) listing {
	as := q.form(r)
	if as == formJSON {
		return listing{as, q.page(page)}
	}
	return listing{as, readmodel.Page{After: q.text("cursor"), Limit: q.number("limit", readmodel.All)}}
}

func (q *query) form(r *http.Request) form {
	if _, given := q.get("format"); given {
		return form(q.word("format", string(formJSON), string(formCSV), string(formNDJSON)))
	}
	best, most := formJSON, 0.0
	for value := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		t, params, _ := mime.ParseMediaType(value)
		weight, err := strconv.ParseFloat(params["q"], 64)
		if err != nil {
			weight = 1
		}
		if f, named := formOf[t]; named && weight > most {
			best, most = f, weight
		}
	}
	return best
}

// formOf a media type. Whatever else may be accepted is no reason to leave the form that lists always had.
var formOf = map[string]form{"application/json": formJSON, "text/csv": formCSV, "application/x-ndjson": formNDJSON}

// writeList answers what a request wants of a list.
func writeList[R any](w http.ResponseWriter, r *http.Request, l listing, s sheet, read pageReader[R]) error {
	w.Header().Add("Vary", "Accept")
	if l.form != formJSON {
		return export(w, r, l, s, read)
	}
	rows, next, err := read(r.Context(), l.Page)
	if err != nil {
		return err
	}
	linkNext(w, r, next)
	return writeJSON(w, rows)
}

// linkNext says where the next page is, if there is one. What follows an array is behind a link (RFC 8288): the array stays
// what it always was.
func linkNext(w http.ResponseWriter, r *http.Request, cursor string) {
	if cursor == "" {
		return
	}
	values, _ := url.ParseQuery(r.URL.RawQuery)
	values.Set("cursor", cursor)
	w.Header().Set("Link", fmt.Sprintf("<%s?%s>; rel=\"next\"", r.URL.EscapedPath(), values.Encode()))
}

// total says how many rows a list has over all pages, where that is known without counting them.
func total(w http.ResponseWriter, n int) { w.Header().Set("X-Total-Count", strconv.Itoa(n)) }
