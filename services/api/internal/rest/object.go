package rest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"slices"
	"strings"
	"time"

	"kanade/libs/bus"
	"kanade/libs/catalog"
	"kanade/libs/events"
	"kanade/libs/events/wire"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/domain"
	"kanade/services/api/internal/journal"
)

// maxUpload is the size of an upload: the object, and what multipart puts around it.
const maxUpload = domain.MaxObject + 64<<10

// maxDownload is what is read of an object that others have stored, in bytes.
const maxDownload = 64 << 20

// downloadTimeout bounds the reading of an object from the broker.
const downloadTimeout = 30 * time.Second

// object is a stored object as answered.
type object struct {
	Name    string  `json:"name"`
	Version string  `json:"version"`
	Size    uint64  `json:"size"`
	Digest  *string `json:"digest"`
}

func objectOf(o bus.ObjectInfo) object {
	end := strings.LastIndexByte(o.Name, '/')
	x := object{Name: o.Name[:end], Version: o.Name[end+1:], Size: o.Size}
	if o.Digest != nil {
		text := wire.FormatDigest(*o.Digest)
		x.Digest = &text
	}
	return x
}

// listObjects answers the newest first. Keys without a version are nobody's script,
// and those of execs are the scheduler's.
func (s *server) listObjects(w http.ResponseWriter, r *http.Request, _ string) error {
	type dated struct {
		object
		Modified *string `json:"modified"`
	}
	if !s.Bus.Connected() {
		return bus.ErrUnavailable
	}
	list, err := s.Bus.Objects(r.Context(), events.StoreScripts)
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b bus.ObjectInfo) int {
		return cmp.Or(b.StoredAt.Compare(a.StoredAt), cmp.Compare(a.Name, b.Name))
	})
	answer := []dated{}
	for _, o := range list {
		if !strings.Contains(o.Name, "/") || strings.HasPrefix(o.Name, events.ExecScriptPrefix) {
			continue
		}
		at := o.StoredAt.Format("2006-01-02T15:04:05.999999999-07:00")
		answer = append(answer, dated{objectOf(o), &at})
	}
	return writeJSON(w, answer)
}

// objectKey is the object that the path names.
func objectKey(r *http.Request) (string, error) {
	name, err := pathValue(r, "name")
	if err != nil {
		return "", err
	}
	version, err := pathValue(r, "version")
	if err != nil {
		return "", err
	}
	return domain.ObjectKey(name, version)
}

// postObject stores an object. Bytes that are in use are not replaced by others.
func (s *server) postObject(w http.ResponseWriter, r *http.Request, route string) error {
	key, err := objectKey(r)
	if err != nil {
		return err
	}
	content, err := readUpload(w, r)
	if err != nil {
		return err
	}
	if err := domain.CheckObject(content); err != nil {
		return err
	}
	c, err := caller(r, route, content)
	if err != nil {
		return err
	}
	stored, err := s.journal.PutObject(r.Context(), c, key, content, s.objectInUse(key))
	if err != nil {
		return err
	}
	answer := objectOf(stored)
	w.Header().Set("ETag", domain.ETag(*answer.Digest))
	return writeJSON(w, answer)
}

// readUpload reads the part "file" of a form; of several the last one counts.
func readUpload(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	r.Body = http.MaxBytesReader(w, r.Body, maxUpload)
	form, err := r.MultipartReader()
	if err != nil {
		return nil, fail(http.StatusBadRequest, "the body must be multipart/form-data with a part named `file`")
	}
	var content []byte
	for found := false; ; {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			if !found {
				return nil, fail(http.StatusBadRequest, "the form has no part named `file`")
			}
			return content, nil
		}
		if err == nil && part.FormName() == "file" {
			found = true
			content, err = readPart(part)
		}
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return nil, objectTooLarge()
		}
		var failed *failure
		if err != nil && !errors.As(err, &failed) {
			return nil, fail(http.StatusBadRequest, "the form could not be read: "+err.Error())
		}
		if err != nil {
			return nil, err
		}
	}
}

func readPart(part *multipart.Part) ([]byte, error) {
	content, err := io.ReadAll(io.LimitReader(part, domain.MaxObject+1))
	if err == nil && len(content) > domain.MaxObject {
		return nil, objectTooLarge()
	}
	return content, err
}

func objectTooLarge() error {
	return fail(http.StatusRequestEntityTooLarge, fmt.Sprintf("the script is larger than the limit of %d bytes", domain.MaxObject))
}

func (s *server) getObject(w http.ResponseWriter, r *http.Request, _ string) error {
	key, err := objectKey(r)
	if err != nil {
		return err
	}
	if !s.Bus.Connected() {
		return bus.ErrUnavailable
	}
	ctx, cancel := context.WithTimeout(r.Context(), downloadTimeout)
	defer cancel()
	o, err := s.Bus.GetObject(ctx, events.StoreScripts, key, maxDownload)
	switch {
	case errors.Is(err, bus.ErrNotFound):
		return domain.Refuse(domain.NotFound, "script object '%s' not found", key)
	case errors.Is(err, bus.ErrTooLarge):
		return domain.Refuse(domain.Conflict, "script object '%s' is larger than the limit of %d bytes", key, maxDownload)
	case err != nil:
		return err
	}
	tag := wire.FormatDigest(o.Digest)
	if err := (domain.Match{If: list(r, "If-Match")}).Check("script object", key, tag); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="%s"`, strings.ReplaceAll(key, "/", "-")))
	h.Set("ETag", domain.ETag(tag))
	http.ServeContent(w, r, "", o.StoredAt, bytes.NewReader(o.Data))
	return nil
}

func (s *server) deleteObject(w http.ResponseWriter, r *http.Request, route string) error {
	key, err := objectKey(r)
	if err != nil {
		return err
	}
	c, err := caller(r, route, nil)
	if err != nil {
		return err
	}
	if err := s.journal.DeleteObject(r.Context(), c, key, s.objectInUse(key)); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// objectInUse refuses while a stored job names an object, or an exec that has not expired has pinned it.
func (s *server) objectInUse(key string) journal.InUse {
	return func(ctx context.Context, sequence uint64) error {
		if err := s.appliedSoon(ctx, sequence); err != nil {
			return err
		}
		jobs, err := s.jobsOf(ctx, key)
		if err != nil {
			return err
		}
		var execs []string
		if len(jobs) == 0 {
			if execs, err = s.execsOf(ctx, key); err != nil {
				return err
			}
		}
		return domain.ObjectInUse(key, jobs, execs)
	}
}

// jobsOf lists the stored jobs that name an object.
func (s *server) jobsOf(ctx context.Context, key string) ([]string, error) {
	stored, _, err := s.Reader.Jobs(ctx, readmodel.Page{Limit: readmodel.All})
	if err != nil {
		return nil, err
	}
	var jobs []string
	for i := range stored {
		m, err := catalog.ParseManifestDocument([]byte(stored[i].Document))
		if err != nil {
			return nil, fmt.Errorf("read job %s: %w", stored[i].ID, err)
		}
		if m.Execute.ScriptObject != nil && *m.Execute.ScriptObject == key {
			jobs = append(jobs, m.ID)
		}
	}
	return jobs, nil
}

// execsOf lists execs that have not expired and run an object. The read model does not know which object an exec runs,
// and the log does.
func (s *server) execsOf(ctx context.Context, key string) ([]string, error) {
	rows, _, err := s.Reader.Executions(ctx, readmodel.ExecutionFilter{Page: readmodel.Page{Limit: readmodel.All}})
	if err != nil {
		return nil, err
	}
	var execs []string
	for i := range rows {
		if !rows[i].ExpiredAt.IsZero() {
			continue
		}
		object, err := s.journal.ScriptObject(ctx, rows[i].Sequence)
		if err != nil {
			return nil, err
		}
		if object == key {
			execs = append(execs, rows[i].ExecID)
		}
	}
	return execs, nil
}
