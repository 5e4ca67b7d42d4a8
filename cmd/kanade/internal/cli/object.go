package cli

import (
	"bytes"
	"context"
	"fmt"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"

	"kanade/cmd/kanade/internal/client"
)

type scriptCmd struct {
	Publish scriptPublishCmd `cmd:"" help:"Store a script as an object that jobs name (execute.script_object: NAME/VERSION). One that is in use is not replaced: take another version."`
	List    scriptListCmd    `cmd:"" help:"List the script objects, newest first."`
	Get     scriptGetCmd     `cmd:"" help:"Print a script object, or write it to a file."`
	Delete  scriptDeleteCmd  `cmd:"" help:"Delete a script object that nothing uses."`
}

// objectArgs name a script object.
type objectArgs struct {
	Name    string `arg:"" help:"Name."`
	Version string `arg:"" help:"Version."`
}

func (o objectArgs) path() string { return client.Path("api", "script-objects", o.Name, o.Version) }

type scriptPublishCmd struct {
	objectArgs
	File string `arg:"" type:"path" help:"The script; UTF-8, at most 4 MiB."`
}

func (c *scriptPublishCmd) Run(ctx context.Context, a *app) error {
	text, err := os.ReadFile(c.File)
	if err != nil {
		return err
	}
	body, contentType, err := form(filepath.Base(c.File), text)
	if err != nil {
		return err
	}
	answer, err := a.do(ctx, client.Request{Method: http.MethodPost, Path: c.path(), Body: body, ContentType: contentType})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(answer.Body)
	}
	var o client.Object
	if err := decode("script object", answer.Body, &o); err != nil {
		return err
	}
	fmt.Fprintf(a.out, "script %s/%s published: %d bytes, %s\n", o.Name, o.Version, o.Size, o.Digest)
	return nil
}

// form is an upload of one file.
func form(name string, content []byte) (body []byte, contentType string, err error) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	part, err := w.CreateFormFile("file", name)
	if err != nil {
		return nil, "", err
	}
	if _, err := part.Write(content); err != nil {
		return nil, "", err
	}
	if err := w.Close(); err != nil {
		return nil, "", err
	}
	return b.Bytes(), w.FormDataContentType(), nil
}

type scriptListCmd struct{}

func (c *scriptListCmd) Run(ctx context.Context, a *app) error {
	var objects []client.Object
	if done, err := a.get(ctx, "/api/script-objects", nil, &objects); done || err != nil {
		return err
	}
	t := newTable(a.out, "NAME", "VERSION", "BYTES", "STORED", "DIGEST")
	for _, o := range objects {
		t.row(o.Name, o.Version, o.Size, o.Modified, o.Digest)
	}
	return t.end()
}

type scriptGetCmd struct {
	objectArgs
	Output string `short:"o" type:"path" placeholder:"FILE" help:"Write it there instead of printing it."`
}

func (c *scriptGetCmd) Run(ctx context.Context, a *app) error {
	answer, err := a.do(ctx, client.Request{Method: http.MethodGet, Path: c.path()})
	if err != nil {
		return withHint(err, "`kanade script list` shows which there are")
	}
	switch {
	case c.Output != "":
		if err := os.WriteFile(c.Output, answer.Body, 0o644); err != nil {
			return err
		}
		if !a.json {
			fmt.Fprintf(a.out, "script %s/%s written to %s: %d bytes\n", c.Name, c.Version, c.Output, len(answer.Body))
			return nil
		}
		return a.printValue(map[string]any{"name": c.Name, "version": c.Version, "size": len(answer.Body), "file": c.Output})
	case a.json:
		return a.printValue(map[string]any{"name": c.Name, "version": c.Version, "size": len(answer.Body), "script": string(answer.Body)})
	}
	_, err = a.out.Write(answer.Body)
	return err
}

type scriptDeleteCmd struct{ objectArgs }

func (c *scriptDeleteCmd) Run(ctx context.Context, a *app) error {
	err := a.write(ctx, client.Request{Method: http.MethodDelete, Path: c.path()}, "script %s/%s deleted", c.Name, c.Version)
	return withHint(err, "`kanade script list` shows which there are")
}
