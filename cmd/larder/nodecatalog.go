package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"larder/internal/node"
	"larder/internal/node/catalog"
	"larder/internal/node/config"
	"larder/internal/strictyaml"
	"larder/internal/sys/durable"
)

func nodeCatalogCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "catalog",
		Short: "Look into the catalogue, and bring publishers in",
		Args:  cobra.ArbitraryArgs,
		RunE:  needSubcommand,

		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(catalogExplainCommand(), catalogImportCommand())
	return cmd
}

func catalogExplainCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain URL",
		Short: "Say what the catalogue makes of a URL: publisher, key, freshness, origin, and why",
		Long: `Says what the catalogue makes of a URL, which may carry cacheHostOrigin. With
--config the catalogue is the one of that file, without it the built-in one and
the files of --dir. Exit code 3 if the URL is not served.`,
		Args: oneArg("a URL"),
	}
	file := cmd.Flags().String("config", "", "take the catalogue of this node configuration")
	dirs := cmd.Flags().StringSlice("dir", nil, "directories with publisher files, besides the built-in catalogue")
	show := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var cc config.Catalog
		if *file != "" {
			cfg, err := loadConfig(*file)
			if err != nil {
				return err
			}
			cc = cfg.Catalog
		}
		sources := node.CatalogSources(cc.Dirs)
		for _, dir := range *dirs { // what was named here has to be there
			sources = append(sources, catalog.Source{Name: dir, FS: os.DirFS(dir), ReadFile: os.ReadFile})
		}
		cat, err := catalog.Load(cc.Builtin, sources...)
		if err != nil {
			return &exitError{exitUsage, err}
		}
		e, err := cat.Explain(args[0])
		if err != nil {
			return &exitError{exitUsage, err}
		}
		if err := show(e, func(w io.Writer) { fmt.Fprint(w, e.String()) }); err != nil {
			return err
		}
		if !e.Served {
			return &exitError{exitNotFound, fmt.Errorf("not served: %s", e.Reason)}
		}
		return nil
	}
	return cmd
}

func catalogImportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import DIR",
		Short: "Make publisher files of a directory in the cache-domains format",
		Long: `Reads cache_domains.json and the text files it names from DIR and writes one
publisher file for each service into --to, where a node that names that directory
under catalog.dirs finds them. Nothing is written if anything in DIR is wrong.`,
		Args: oneArg("the directory that holds cache_domains.json"),
	}
	to := cmd.Flags().String("to", "/etc/larder/catalog.d", "where the publisher files go")
	force := cmd.Flags().Bool("force", false, "replace files that are there already")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		files, err := catalog.ImportCacheDomains(os.DirFS(args[0]))
		if err != nil {
			var ms strictyaml.Mistakes
			if errors.As(err, &ms) {
				for i := range ms {
					ms[i].File = filepath.Join(args[0], ms[i].File)
				}
				err = ms
			}
			return &exitError{exitUsage, err}
		}
		if err := os.MkdirAll(*to, 0o755); err != nil {
			return err
		}
		for _, f := range files {
			if _, err := os.Stat(filepath.Join(*to, f.Name)); err == nil && !*force {
				return &exitError{exitConflict, fmt.Errorf("%s is there already; --force replaces it", filepath.Join(*to, f.Name))}
			}
		}
		for _, f := range files {
			name := filepath.Join(*to, f.Name)
			if err := durable.WriteFile(name, f.Data, 0o644); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), name)
		}
		return nil
	}
	return cmd
}
