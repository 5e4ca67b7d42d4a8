package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"kanade/libs/catalog"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/domain"
)

func (s *server) listJobs(w http.ResponseWriter, r *http.Request, _ string) error {
	q := queryOf(r)
	page := q.page(readmodel.All)
	if q.err != nil {
		return q.err
	}
	rows, next, err := s.Reader.Jobs(r.Context(), page)
	if err != nil {
		return err
	}
	n, err := s.Reader.CountJobs(r.Context())
	if err != nil {
		return err
	}
	total(w, n)
	answer := make([]json.RawMessage, len(rows))
	for i, j := range rows {
		answer[i] = withLive(j)
	}
	return writeList(w, r, answer, next)
}

// withLive is the stored document, byte for byte, with one more key.
func withLive(j readmodel.Job) json.RawMessage {
	open := j.Document[:len(j.Document)-1]
	return fmt.Appendf(nil, `%s,"live":{"running":%d,"pending":%d}}`, open, j.Live.Running, j.Live.Pending)
}

func (s *server) job(r *http.Request) (readmodel.Job, error) {
	id, err := pathID(r, "id")
	if err != nil {
		return readmodel.Job{}, err
	}
	j, err := s.Reader.Job(r.Context(), id)
	if errors.Is(err, readmodel.ErrNotFound) {
		err = domain.Refuse(domain.NotFound, "job '%s' not found", id)
	}
	return j, err
}

func (s *server) getJob(w http.ResponseWriter, r *http.Request, _ string) error {
	j, err := s.job(r)
	if err != nil || notModified(w, r, domain.ETag(j.Hash)) {
		return err
	}
	return writeBytes(w, "application/json", []byte(j.Document))
}

func (s *server) getJobYAML(w http.ResponseWriter, r *http.Request, _ string) error {
	j, err := s.job(r)
	if err != nil {
		return err
	}
	text, err := domain.YAMLText(j.Source, j.SourceType, j.Document)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", domain.ETag(j.Hash))
	return writeBytes(w, "application/yaml", []byte(text))
}

func (s *server) postJob(w http.ResponseWriter, r *http.Request, route string) error {
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	t := documentType(r)
	m, err := catalog.ParseManifest(body, t)
	if err == nil {
		err = m.Unsupported()
	}
	if err != nil {
		return domain.RefuseDocument(err)
	}
	if err := domain.CheckID("id", m.ID); err != nil {
		return err
	}
	c, err := caller(r, route, body)
	if err != nil {
		return err
	}
	seq, err := s.journal.SaveJob(r.Context(), c, m, string(body), t)
	if err != nil {
		return err
	}
	doc, err := m.Document()
	if err != nil {
		return err
	}
	hash := catalog.Hash(doc)
	written(w, seq)
	w.Header().Set("ETag", domain.ETag(hash))
	return writeJSON(w, struct {
		ID          string  `json:"id"`
		Version     string  `json:"version"`
		Description *string `json:"description"`
		Inventory   bool    `json:"inventory"`
		Sequence    uint64  `json:"sequence"`
		Hash        string  `json:"hash"`
	}{m.ID, m.Version, m.Description, m.Inventory != nil, seq, hash})
}

func (s *server) deleteJob(w http.ResponseWriter, r *http.Request, route string) error {
	id, err := pathID(r, "id")
	if err != nil {
		return err
	}
	c, err := caller(r, route, nil)
	if err != nil {
		return err
	}
	seq, err := s.journal.DeleteJob(r.Context(), c, id, func(ctx context.Context, sequence uint64) ([]string, error) {
		return s.schedulesWith(ctx, sequence, func(x readmodel.Schedule) bool { return x.JobID == id })
	})
	if err != nil {
		return err
	}
	written(w, seq)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// schedulesWith lists the schedules of which something is true, as of at least a sequence.
func (s *server) schedulesWith(ctx context.Context, sequence uint64, is func(readmodel.Schedule) bool) ([]string, error) {
	if err := s.appliedTo(ctx, sequence); err != nil {
		return nil, err
	}
	rows, _, err := s.Reader.Schedules(ctx, readmodel.Page{Limit: readmodel.All})
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range rows {
		if is(rows[i]) {
			names = append(names, rows[i].ID)
		}
	}
	return names, nil
}
