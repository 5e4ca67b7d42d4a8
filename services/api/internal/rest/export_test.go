package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"kanade/libs/readmodel"
)

// What breaks off in the middle does not look like something whole; what fails at the start is an error as any other.
func TestExportBreaksOff(t *testing.T) {
	type row struct {
		N int `json:"n"`
	}
	var log bytes.Buffer
	pages := 0
	s := &server{Config: Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}}
	web := httptest.NewServer(s.dispatch("/", methods{http.MethodGet: func(w http.ResponseWriter, r *http.Request, _ string) error {
		n := 0
		l := listing{formNDJSON, readmodel.Page{Limit: readmodel.All}}
		return writeList(w, r, l, sheetOf[row]("rows"), func(context.Context, readmodel.Page) ([]row, string, error) {
			if n++; n > pages {
				return nil, "", errors.New("the disk is gone")
			}
			return make([]row, exportStep), "more", nil
		})
	}}))
	defer web.Close()
	get := func() (int, []byte, error) {
		res, err := http.Get(web.URL)
		require.NoError(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		return res.StatusCode, body, err
	}
	status, _, err := get()
	require.NoError(t, err)
	require.Equal(t, http.StatusInternalServerError, status)

	pages = 3
	status, body, err := get()
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, log.String(), "an answer broke off")
	require.Contains(t, log.String(), "export rows: the disk is gone")
	for line := range bytes.Lines(body) {
		if bytes.HasSuffix(line, []byte("\n")) {
			require.True(t, json.Valid(line), "%s", line)
		}
	}
}
