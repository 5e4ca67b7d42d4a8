// Package examples holds documents to start from: jobs and schedules that work as they are.
//
//	jobs/sh/          jobs for Linux and macOS
//	jobs/powershell/  the same jobs, by the same ids, for Windows
//	schedules/        when to run them, one file for each form
//
// `kanade up --demo` registers some of them; `kanade job create examples/jobs/sh` and `kanade schedule create
// examples/schedules` register the rest.
package examples

import (
	"embed"
	"io/fs"
)

//go:embed jobs schedules
var files embed.FS

// FS holds the files of this folder, by their paths in it.
func FS() fs.FS { return files }
