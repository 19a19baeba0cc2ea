//! `explain`: what would become of a request under a configuration, and why. No socket is opened, and no
//! daemon asked.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use ruststrom_core::explain::{Asked, explain};
use ruststrom_driver::clock;
use ruststrom_driver::watch::Contents;

use crate::{load, output};

/// The arguments of `explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    /// GET, POST, …
    method: String,
    /// The URL with its scheme and host, or a target alone: /api.
    url: String,
    /// A field of the request; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Who is connected: a client, or a proxy in front.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    client_ip: IpAddr,
    /// The listener that the request comes by [default: the first that fits the URL].
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Prints what would become of a request.
///
/// # Errors
/// A message, if the configuration cannot be used, or the request not be sent that way.
pub(crate) fn run(arguments: &ExplainArguments, file: &Path) -> Result<ExitCode, String> {
    let text = load::read(file)?;
    let folder = file.parent().map(PathBuf::from).unwrap_or_default();
    let loaded = load::load(&file.display().to_string(), &text, &folder, None, &mut Contents::default())?;
    let asked = Asked {
        method: &arguments.method,
        url: &arguments.url,
        fields: &arguments.headers,
        peer: arguments.client_ip,
        listener: arguments.listener.as_deref(),
        wall: clock::wall(),
        hostname: &clock::hostname(),
        certificate: &|server_name| loaded.tls.place(server_name),
    };
    let explanation = explain(&loaded.config, &asked).map_err(|problem| problem.to_string())?;
    output::print(&match arguments.json {
        true => serde_json::to_string_pretty(&explanation).map_err(|e| e.to_string())? + "\n",
        false => explanation.to_string(),
    })?;
    Ok(ExitCode::SUCCESS)
}
