package deploy

import (
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestUnitsSetOnlyWhatProgramsRead(t *testing.T) {
	for _, service := range programs {
		unit := read(t, filepath.Join("systemd", "kanade-"+service+".service"))
		require.Regexp(t, `(?m)^ExecStart=/usr/local/bin/kanade-`+service+`$`, unit)
		help := understands(t, service)
		for _, name := range regexp.MustCompile(`(?m)^Environment=(\w+)=`).FindAllStringSubmatch(unit, -1) {
			require.Regexp(t, `\$`+name[1]+`\b`, help, "%s does not read %s", service, name[1])
		}
	}
}

func TestUnitsShareTheReadModel(t *testing.T) {
	for _, service := range []string{"api", "projector"} {
		unit := read(t, filepath.Join("systemd", "kanade-"+service+".service"))
		for _, line := range []string{"User=kanade", "StateDirectory=kanade/read-model", "Environment=KANADE_READ_MODEL_DIR=/var/lib/kanade/read-model"} {
			require.Contains(t, unit, "\n"+line+"\n", service)
		}
	}
}
