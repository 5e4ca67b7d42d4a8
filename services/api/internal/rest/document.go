package rest

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"kanade/libs/catalog"
	"kanade/libs/readmodel"
	"kanade/services/api/internal/domain"
)

// Jobs, schedules and calendars are documents of one kind of life: what is answered of them is written here.

// listDocuments answers documents as they are stored, or as text makes them.
func listDocuments[R any](
	w http.ResponseWriter, r *http.Request, as sheet, list pageReader[R], count func(context.Context) (int, error), text func(*R) json.RawMessage,
) error {
	q := queryOf(r)
	l := q.list(r, readmodel.All)
	if q.err != nil {
		return q.err
	}
	n, err := count(r.Context())
	if err != nil {
		return err
	}
	total(w, n)
	return writeList(w, r, l, as, func(ctx context.Context, p readmodel.Page) ([]json.RawMessage, string, error) {
		rows, next, err := list(ctx, p)
		return rowsOf(rows, next, err, text)
	})
}

// documentOf reads the document that the path names; noun is what a refusal calls it.
func documentOf[R any](r *http.Request, noun string, read func(context.Context, string) (R, error)) (R, error) {
	var none R
	id, err := pathID(r, "id")
	if err != nil {
		return none, err
	}
	x, err := read(r.Context(), id)
	if errors.Is(err, readmodel.ErrNotFound) {
		err = domain.Refuse(domain.NotFound, "%s '%s' not found", noun, id)
	}
	return x, err
}

// writeDocument answers a document as it is stored, unless the client has it.
func writeDocument(w http.ResponseWriter, r *http.Request, x readmodel.Revision) error {
	if notModified(w, r, domain.ETag(x.Hash)) {
		return nil
	}
	return writeBytes(w, "application/json", []byte(x.Document))
}

// writeDocumentYAML answers a document as its author wrote it.
func writeDocumentYAML(w http.ResponseWriter, x readmodel.Revision) error {
	text, err := domain.YAMLText(x.Source, x.SourceType, x.Document)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", domain.ETag(x.Hash))
	return writeBytes(w, "application/yaml", []byte(text))
}

// saved marks the answer to a save with its sequence and the document's ETag, and gives its hash.
func saved(w http.ResponseWriter, seq uint64, doc interface{ Document() ([]byte, error) }) (hash string, err error) {
	text, err := doc.Document()
	if err != nil {
		return "", err
	}
	hash = catalog.Hash(text)
	written(w, seq)
	w.Header().Set("ETag", domain.ETag(hash))
	return hash, nil
}
