package rest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"kanade/libs/catalog"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/domain"
)

func (s *server) listJobs(w http.ResponseWriter, r *http.Request, _ string) error {
	return listDocuments(w, r, sheetOf[catalog.Manifest]("jobs", "live"), s.Reader.Jobs, s.Reader.CountJobs, withLive)
}

// withLive is the stored document, byte for byte, with one more key.
func withLive(j *readmodel.Job) json.RawMessage {
	open := j.Document[:len(j.Document)-1]
	return fmt.Appendf(nil, `%s,"live":{"running":%d,"pending":%d}}`, open, j.Live.Running, j.Live.Pending)
}

func (s *server) job(r *http.Request) (readmodel.Job, error) {
	return documentOf(r, "job", s.Reader.Job)
}

func (s *server) getJob(w http.ResponseWriter, r *http.Request, _ string) error {
	j, err := s.job(r)
	if err != nil {
		return err
	}
	return writeDocument(w, r, j.Revision)
}

func (s *server) getJobYAML(w http.ResponseWriter, r *http.Request, _ string) error {
	j, err := s.job(r)
	if err != nil {
		return err
	}
	return writeDocumentYAML(w, j.Revision)
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
	hash, err := saved(w, seq, m)
	if err != nil {
		return err
	}
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
	return done(w, seq)
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
