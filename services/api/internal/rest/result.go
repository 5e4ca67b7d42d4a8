package rest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/domain"
)

// result is one run as answered. exit_code is null while it runs and where the script did not end by itself; a skip may
// have one.
type result struct {
	ResultID   string  `json:"result_id"`
	RequestID  string  `json:"request_id"`
	ExecID     string  `json:"exec_id"`
	PCID       string  `json:"pc_id"`
	ExitCode   *int    `json:"exit_code"`
	Stdout     string  `json:"stdout"`
	Stderr     string  `json:"stderr"`
	StartedAt  instant `json:"started_at"`
	FinishedAt instant `json:"finished_at"`
	JobID      string  `json:"job_id"`
	Version    string  `json:"version"`

	State           events.TargetState `json:"state"`
	Reason          string             `json:"reason"`
	Detail          string             `json:"detail"`
	RecordedAt      instant            `json:"recorded_at"`
	Sequence        uint64             `json:"sequence"`
	StdoutBytes     int64              `json:"stdout_bytes"`
	StderrBytes     int64              `json:"stderr_bytes"`
	StdoutTruncated bool               `json:"stdout_truncated"`
	StderrTruncated bool               `json:"stderr_truncated"`
	StdoutObject    string             `json:"stdout_object,omitempty"`
	StderrObject    string             `json:"stderr_object,omitempty"`
}

func resultOf(x *readmodel.Result) result {
	return result{
		ResultID: x.ResultID, RequestID: x.RequestID, ExecID: x.ExecID, PCID: x.PCID, ExitCode: x.ExitCode,
		Stdout: x.Stdout.Text, Stderr: x.Stderr.Text, StartedAt: instant(x.StartedAt), FinishedAt: instant(x.FinishedAt),
		JobID: x.JobID, Version: x.Version, State: x.State, Reason: x.Reason, Detail: x.Detail,
		RecordedAt: instant(x.RecordedAt), Sequence: x.Sequence, StdoutBytes: x.Stdout.Bytes, StderrBytes: x.Stderr.Bytes,
		StdoutTruncated: x.Stdout.Truncated, StderrTruncated: x.Stderr.Truncated,
		StdoutObject: x.Stdout.Object, StderrObject: x.Stderr.Object,
	}
}

func (s *server) listResults(w http.ResponseWriter, r *http.Request, _ string) error {
	q := queryOf(r)
	filter := readmodel.ResultFilter{
		Since: q.time("since"), PCID: q.regex("pc_id"), JobID: q.regex("job_id"), ExecID: q.regex("exec_id"),
		Stdout: q.regex("stdout"), Stderr: q.regex("stderr"), Words: q.words("q"), Status: q.resultStatus(),
	}
	l := q.list(r, defaultLimit)
	if q.err != nil {
		return q.err
	}
	if err := s.announceResults(w, r, &filter); err != nil {
		return err
	}
	return writeList(w, r, l, sheetOf[result]("results"), func(ctx context.Context, p readmodel.Page) ([]result, string, error) {
		filter.Page = p
		rows, next, err := s.Reader.Results(ctx, filter)
		return rowsOf(rows, next, err, resultOf)
	})
}

// announceResults says how many results there are, where that costs nothing, and how far they can be searched by words.
func (s *server) announceResults(w http.ResponseWriter, r *http.Request, f *readmodel.ResultFilter) error {
	if f.Words != "" {
		seq, err := s.Reader.Searched(r.Context())
		w.Header().Set(headerSearched, strconv.FormatUint(seq, 10))
		return err
	}
	jobID, countable := f.Countable()
	if !countable {
		return nil
	}
	n, err := s.Reader.CountResults(r.Context(), f.Status, jobID)
	total(w, n)
	return err
}

// resultStatus is the parameter status; an empty one is an error.
func (q *query) resultStatus() readmodel.ResultStatus {
	status, given := q.get("status")
	switch s := readmodel.ResultStatus(status); s {
	case readmodel.ResultSuccess, readmodel.ResultFailure, readmodel.ResultRunning:
		return s
	default:
		if given {
			q.refuse("status", "expected success, failure or running, got %q", status)
		}
		return ""
	}
}

// words is a search by words; none when blank.
func (q *query) words(name string) readmodel.Words {
	words, err := readmodel.ParseWords(q.text(name))
	if err != nil {
		q.refuse(name, "%v", err)
	}
	return words
}

func (s *server) result(r *http.Request) (readmodel.Result, error) {
	id, err := pathValue(r, "result_id")
	if err != nil {
		return readmodel.Result{}, err
	}
	x, err := s.Reader.Result(r.Context(), id)
	if errors.Is(err, readmodel.ErrNotFound) {
		err = domain.Refuse(domain.NotFound, "result '%s' not found", id)
	}
	return x, err
}

func (s *server) getResult(w http.ResponseWriter, r *http.Request, _ string) error {
	x, err := s.result(r)
	if err != nil {
		return err
	}
	return writeJSON(w, resultOf(&x))
}

// maxOutput is the largest output that is handed out, in bytes: far more than any agent stores.
const maxOutput = 64 << 20

// getOutput answers one output stream as text: the object that holds what the result leaves out, or the result's own.
func (s *server) getOutput(w http.ResponseWriter, r *http.Request, _ string) error {
	stream, err := pathValue(r, "stream")
	if err != nil {
		return err
	}
	if stream != "stdout" && stream != "stderr" {
		return domain.Refuse(domain.NotFound, "no such output '%s': there are stdout and stderr", stream)
	}
	x, err := s.result(r)
	if err != nil {
		return err
	}
	out := x.Stdout
	if stream == "stderr" {
		out = x.Stderr
	}
	const contentType = "text/plain; charset=utf-8"
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if out.Object == "" {
		return writeBytes(w, contentType, []byte(out.Text))
	}
	if !s.Bus.Connected() {
		return fmt.Errorf("read %s of result %s: %w", stream, x.ResultID, bus.ErrUnavailable)
	}
	object, err := s.Bus.GetObject(r.Context(), events.StoreResultOutput, out.Object, maxOutput)
	if errors.Is(err, bus.ErrNotFound) {
		return domain.Refuse(domain.NotFound,
			"the whole %s of result '%s' is kept no longer; its beginning and end are in the result", stream, x.ResultID)
	}
	if err != nil {
		return fmt.Errorf("read %s of result %s: %w", stream, x.ResultID, err)
	}
	return writeBytes(w, contentType, object.Data)
}
