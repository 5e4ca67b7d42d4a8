package rest

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"

	"kanade/libs/readmodel"
)

// sheet is what a list is as a file: its name without an ending, and what its rows are.
type sheet struct {
	name  string
	row   reflect.Type
	added []string
}

// sheetOf has a column for each key of R as JSON, and for those that are added to it.
func sheetOf[R any](name string, added ...string) sheet {
	return sheet{name, reflect.TypeFor[R](), added}
}

// columns are the keys of a row in their order.
func (s sheet) columns() (keys []string) {
	for _, f := range reflect.VisibleFields(s.row) {
		if key, _, _ := strings.Cut(f.Tag.Get("json"), ","); key != "" && key != "-" { // what is embedded has no key of its own
			keys = append(keys, key)
		}
	}
	return append(keys, s.added...)
}

// exportStep is how many rows of an export are in memory, of results at most as many as a page holds.
const exportStep = 500

// brokenOff is the error of an answer that has begun: it can't become another one any more.
type brokenOff struct{ error }

// export streams all rows that a request wants, however many they are, and sends those of a page as soon as it has them: who
// waits sees that it goes on. What a row says is as of the moment when it is written. An error before the first row is an
// answer as any other; a later one is [brokenOff], of which HTTP/1.0 can't tell: it is refused.
func export[R any](w http.ResponseWriter, r *http.Request, l listing, s sheet, read pageReader[R]) error {
	if !r.ProtoAtLeast(1, 1) {
		return fail(http.StatusHTTPVersionNotSupported,
			"an export needs HTTP/1.1: in "+r.Proto+" one that breaks off looks like a whole one. A proxy in between may be told (nginx: proxy_http_version 1.1)")
	}
	var to rowWriter
	for left := l.Limit; ; {
		page := readmodel.Page{After: l.After, Limit: exportStep}
		if left >= 0 {
			page.Limit = min(exportStep, left)
		}
		rows, next, err := read(r.Context(), page)
		if to == nil {
			if err != nil {
				return err
			}
			if to = s.begin(w, l.form); r.Method == http.MethodHead {
				return nil
			}
		}
		if err == nil {
			err = writeRows(to, rows)
		}
		if err == nil {
			err = http.NewResponseController(w).Flush()
		}
		if err != nil {
			return brokenOff{fmt.Errorf("export %s: %w", s.name, err)}
		}
		if left >= 0 {
			left -= len(rows)
		}
		if next == "" || left == 0 {
			return nil
		}
		l.After = next
	}
}

// begin says of what kind the answer is, and how it is to be saved.
func (s sheet) begin(w http.ResponseWriter, as form) rowWriter {
	mediaType, to := "application/x-ndjson", rowWriter(jsonRows{w})
	if as == formCSV {
		mediaType, to = "text/csv; charset=utf-8", &csvRows{csv: csv.NewWriter(w), columns: s.columns()}
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%s.%s"`, s.name, as))
	return to
}

// rowWriter writes rows that are JSON objects, each with a line's end.
type rowWriter interface {
	row(object []byte) error
	flush() error
}

func writeRows[R any](to rowWriter, rows []R) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	for i := range rows {
		b.Reset()
		if err := enc.Encode(&rows[i]); err != nil {
			return err
		}
		if err := to.row(b.Bytes()); err != nil {
			return err
		}
	}
	return to.flush()
}

// jsonRows writes the rows of the list, one a line.
type jsonRows struct{ to io.Writer }

func (j jsonRows) row(object []byte) error {
	_, err := j.to.Write(object)
	return err
}

func (jsonRows) flush() error { return nil }

// csvRows writes RFC 4180, with the keys of the list as its first record; but that a record ends with a line feed alone, as
// the lines of most outputs do. What is absent or null is empty; what is an object or an array is JSON.
type csvRows struct {
	csv     *csv.Writer
	columns []string
	begun   bool
}

func (c *csvRows) row(object []byte) error {
	if err := c.header(); err != nil {
		return err
	}
	var values map[string]json.RawMessage
	if err := json.Unmarshal(object, &values); err != nil {
		return err
	}
	record := make([]string, len(c.columns))
	for i, key := range c.columns {
		switch v := values[key]; {
		case len(v) == 0 || string(v) == "null":
		case v[0] == '"':
			if err := json.Unmarshal(v, &record[i]); err != nil {
				return err
			}
		default:
			record[i] = string(v)
		}
	}
	return c.csv.Write(record)
}

func (c *csvRows) header() error {
	if c.begun {
		return nil
	}
	c.begun = true
	return c.csv.Write(c.columns)
}

func (c *csvRows) flush() error {
	if err := c.header(); err != nil {
		return err
	}
	c.csv.Flush()
	return c.csv.Error()
}
