package rest

import (
	"encoding/csv"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"kanade/libs/readmodel"
)

// form is how a list is written.
type form string

// The forms: JSON is a page of the list, the others are the whole of it, row by row.
const (
	formJSON   form = "json"
	formCSV    form = "csv"
	formNDJSON form = "ndjson"
)

func (f form) mediaType() string {
	if f == formCSV {
		return "text/csv; charset=utf-8"
	}
	return "application/x-ndjson"
}

// exportForm is what the parameter format says, or else the header Accept where it names one of them.
func exportForm(r *http.Request, q *query) form {
	if _, given := q.get("format"); given {
		return form(q.word("format", string(formJSON), string(formCSV), string(formNDJSON)))
	}
	for value := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		switch t, _, _ := mime.ParseMediaType(value); t {
		case "text/csv":
			return formCSV
		case "application/x-ndjson":
			return formNDJSON
		}
	}
	return formJSON
}

// exportResults streams all results of a filter, whatever they are many: what is held in memory is a page of them. An answer
// that breaks off is broken off for the client as well, which otherwise could not tell it from a whole one.
func (s *server) exportResults(w http.ResponseWriter, r *http.Request, f readmodel.ResultFilter, as form) error {
	rows := newResultWriter(w, as)
	begun := false
	begin := func() error {
		begun = true
		w.Header().Set("Content-Type", as.mediaType())
		w.Header().Set("Content-Disposition", `attachment; filename="results.`+string(as)+`"`)
		return rows.header()
	}
	err := s.Reader.EachResult(r.Context(), f, func(x *readmodel.Result) error {
		if !begun {
			if err := begin(); err != nil {
				return err
			}
		}
		return rows.row(x)
	})
	if err == nil && !begun {
		err = begin()
	}
	if err == nil {
		err = rows.flush()
	}
	if err != nil && begun {
		s.Logger.Warn("an export broke off", "path", r.URL.Path, "error", err)
		panic(http.ErrAbortHandler) // net/http knows no other way to break an answer off
	}
	return err
}

// resultWriter writes results one by one.
type resultWriter interface {
	header() error
	row(*readmodel.Result) error
	flush() error
}

func newResultWriter(w io.Writer, as form) resultWriter {
	if as == formCSV {
		return csvResults{csv.NewWriter(w)}
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return jsonResults{enc}
}

// jsonResults writes a line of JSON for each, the same as in the list.
type jsonResults struct{ enc *json.Encoder }

func (jsonResults) header() error                   { return nil }
func (j jsonResults) row(x *readmodel.Result) error { return j.enc.Encode(resultOf(x)) }
func (jsonResults) flush() error                    { return nil }

// csvResults writes RFC 4180, with the keys of the list as its first record. What is unknown is empty.
type csvResults struct{ csv *csv.Writer }

func (c csvResults) header() error {
	return c.csv.Write([]string{
		"result_id", "request_id", "exec_id", "pc_id", "job_id", "version", "state", "exit_code", "reason", "detail",
		"started_at", "finished_at", "recorded_at", "sequence",
		"stdout_bytes", "stdout_truncated", "stderr_bytes", "stderr_truncated", "stdout", "stderr",
	})
}

func (c csvResults) row(x *readmodel.Result) error {
	code := ""
	if x.ExitCode != nil {
		code = strconv.Itoa(*x.ExitCode)
	}
	return c.csv.Write([]string{
		x.ResultID, x.RequestID, x.ExecID, x.PCID, x.JobID, x.Version, string(x.State), code, x.Reason, x.Detail,
		instant(x.StartedAt).text(), instant(x.FinishedAt).text(), instant(x.RecordedAt).text(), strconv.FormatUint(x.Sequence, 10),
		strconv.FormatInt(x.Stdout.Bytes, 10), strconv.FormatBool(x.Stdout.Truncated),
		strconv.FormatInt(x.Stderr.Bytes, 10), strconv.FormatBool(x.Stderr.Truncated), x.Stdout.Text, x.Stderr.Text,
	})
}

func (c csvResults) flush() error {
	c.csv.Flush()
	return c.csv.Error()
}
