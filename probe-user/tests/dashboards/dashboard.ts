// What a dashboard file of ours may hold: Grafana's published types, tied together.
//
// They leave a panel's options and a query open (`Record<string, unknown>`), because those are the plugin's; here each of
// the panel types in use gets the options that its own plugin publishes. A key that no type knows is an error.

import type { Dashboard, Panel, RowPanel, TableFieldOptions } from '@grafana/schema';
import type { AnnotationQuery } from '@grafana/schema';
import type * as graph from '@grafana/schema/dist/esm/raw/composable/nodegraph/panelcfg/x/NodeGraphPanelCfg_types.gen';
import type * as heatmap from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type * as stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as series from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// In JSON a value of an enum is what it stands for.
type Json<T> = T extends string
  ? string extends T ? T : `${T}`
  : T extends number
    ? number extends T ? T : `${T}` extends `${infer N extends number}` ? N : never
    : T extends (infer E)[]
      ? Json<E>[]
      : unknown extends T
        ? unknown
        : T extends object
          ? { [K in keyof T]: Json<T[K]> }
          : T;

// The Prometheus data source publishes its query with its own package; these are the fields we use of it.
interface Query {
  refId: string;
  datasource: { type: 'prometheus'; uid: string };
  editorMode: 'code';
  expr: string;
  legendFormat: string;
  format: 'time_series' | 'table' | 'heatmap';
  instant: boolean;
  range: boolean;
}

type Typed<Type extends string, Options, Custom> =
  Json<Omit<Panel<Options, Custom>, 'type' | 'options' | 'targets' | 'fieldConfig'>> & {
    type: Type;
    targets: Query[];
    options: Json<Partial<Options>>;
    fieldConfig: Json<Omit<NonNullable<Panel['fieldConfig']>, 'defaults'>> & {
      defaults: Json<Omit<NonNullable<Panel['fieldConfig']>['defaults'], 'custom'>> & { custom?: Json<Partial<Custom>> };
    };
  };

// What a row that is collapsed has inside is held to the same.
interface Row extends Json<Omit<RowPanel, 'panels'>> {
  panels: Exclude<AnyPanel, Row>[];
}

type AnyPanel =
  | Row
  | Typed<'stat', stat.Options, {}>
  | Typed<'timeseries', series.Options, series.FieldConfig>
  | Typed<'table', table.Options, TableFieldOptions>
  | Typed<'nodeGraph', graph.Options, {}>
  | Typed<'heatmap', heatmap.Options, heatmap.FieldConfig>;

// An annotation of the Prometheus data source, whose own fields stand beside the others.
type Mark = Json<AnnotationQuery> & {
  expr: string;
  step: string;
  titleFormat: string;
  textFormat: string;
  tagKeys: string;
  useValueForTime: boolean;
};

export type Board = Json<Omit<Dashboard, 'panels' | 'annotations'>> & {
  panels: AnyPanel[];
  annotations: { list: Mark[] };
};
