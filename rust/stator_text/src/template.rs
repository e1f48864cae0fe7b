//! A chat template: Jinja as Transformers sets it up, bounded in steps and output.

use std::error::Error as _;
use std::fmt;
use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};

use crate::{context, generation, methods, python, time};

/// Values are part of the C ABI.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok = 0,
    Syntax = 1,
    Raised = 2,
    Undefined = 3,
    Operation = 4,
    Steps = 5,
    Output = 6,
    Context = 7,
    Panic = 8,
}

pub struct Failure {
    pub status: Status,
    pub message: String,
    pub line: u32,
}

pub struct Options {
    pub bos_token: String,
    pub eos_token: String,
    pub max_steps: u64,
    pub max_output_bytes: u64,
}

pub struct Template {
    env: Environment<'static>,
    max_output_bytes: usize,
    /// A context with another variable is slower to look things up in.
    shows_time: bool,
}

const NAME: &str = "chat template";

/// Marks, as its source, the error that raise_exception() makes.
#[derive(Debug)]
struct Raised;

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("raised by the template")
    }
}

impl std::error::Error for Raised {}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message).with_source(Raised))
}

/// Passes the output on up to a limit.
struct BoundedOutput<'a> {
    append: &'a mut dyn FnMut(&[u8]),
    left: usize,
    overflowed: bool,
}

impl io::Write for BoundedOutput<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.write_all(data)?;
        Ok(data.len())
    }

    fn write_all(&mut self, data: &[u8]) -> io::Result<()> {
        if data.len() > self.left {
            self.overflowed = true;
            return Err(io::Error::other("the output is too long"));
        }
        self.left -= data.len();
        (self.append)(data);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// minijinja bounds how deep brackets and blocks nest, but not how long a chain of operators is, and its compiler goes
/// down one frame per link.
fn on_deep_stack<T: Send>(
    source_size: usize,
    work: impl FnOnce() -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    const MAX_SOURCE_BYTES: usize = 1 << 20;
    const STACK_PER_BYTE: usize = 1024;
    let refuse = |message: String| Failure {
        status: Status::Syntax,
        message,
        line: 0,
    };
    if source_size > MAX_SOURCE_BYTES {
        return Err(refuse(format!(
            "{source_size} bytes; at most {MAX_SOURCE_BYTES} are read"
        )));
    }
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .stack_size((8 << 20) + source_size * STACK_PER_BYTE)
            .spawn_scoped(scope, work)
            .map_err(|e| refuse(format!("no thread to compile it on: {e}")))?
            .join()
            .unwrap_or_else(|_| Err(refuse("the compiler panicked".to_string())))
    })
}

impl Template {
    pub fn compile(source: &[u8], options: Options) -> Result<Template, Failure> {
        let source = std::str::from_utf8(source).map_err(|e| Failure {
            status: Status::Syntax,
            message: format!("not UTF-8 at byte {}", e.valid_up_to()),
            line: 0,
        })?;
        let mut env = Environment::new();
        let syntax = SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build();
        env.set_syntax(syntax.map_err(|e| failure(&e, false))?);
        // Errors then name the expression that was undefined.
        env.set_debug(true);
        env.set_fuel(Some(options.max_steps));
        env.set_unknown_method_callback(methods::call);
        env.remove_global("debug");
        env.remove_filter("pprint");
        env.add_global("bos_token", options.bos_token);
        env.add_global("eos_token", options.eos_token);
        env.add_function("raise_exception", raise_exception);
        env.add_filter("tojson", python::tojson);
        env.add_filter("indent", python::indent);
        env.add_filter("escape", python::escape);
        env.add_filter("e", python::escape);
        env.add_test("sequence", python::is_sequence);
        env.add_test("iterable", python::is_iterable);
        let source = generation::tags_as_with(source);
        let shows_time = source.contains("strftime_now");
        let env = on_deep_stack(source.len(), move || {
            env.add_template_owned(NAME, source)
                .map_err(|e| failure(&e, false))?;
            Ok(env)
        })?;
        let max_output_bytes = usize::try_from(options.max_output_bytes).unwrap_or(usize::MAX);
        Ok(Template {
            env,
            max_output_bytes,
            shows_time,
        })
    }

    pub fn render(
        &self,
        context: &[u8],
        texts: &[&[u8]],
        unix_seconds: Option<i64>,
        append: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Failure> {
        let clock = unix_seconds.filter(|_| self.shows_time).map(|now| {
            let strftime_now = move |format: &str| time::strftime(now, format);
            ("strftime_now", Value::from_function(strftime_now))
        });
        let variables = context::read(context, texts, clock).map_err(|message| Failure {
            status: Status::Context,
            message,
            line: 0,
        })?;
        if variables.kind() != ValueKind::Map {
            let message = format!("{} instead of an object", variables.kind());
            return Err(Failure {
                status: Status::Context,
                message,
                line: 0,
            });
        }
        let mut output = BoundedOutput {
            append,
            left: self.max_output_bytes,
            overflowed: false,
        };
        let rendered = self.env.get_template(NAME).and_then(|template| {
            template
                .render_captured_to(variables, &mut output)
                .map(drop)
        });
        match rendered {
            Ok(()) => Ok(()),
            Err(error) => Err(failure(&error, output.overflowed)),
        }
    }
}

/// What went wrong, at the innermost place of the template.
fn failure(error: &Error, overflowed: bool) -> Failure {
    let mut innermost = error;
    let mut raised = false;
    let mut source = error.source();
    while let Some(cause) = source {
        raised |= cause.is::<Raised>();
        if let Some(inner) = cause.downcast_ref::<Error>() {
            innermost = inner;
        }
        source = cause.source();
    }
    let status = if overflowed {
        Status::Output
    } else if raised {
        Status::Raised
    } else {
        match innermost.kind() {
            ErrorKind::SyntaxError => Status::Syntax,
            ErrorKind::UndefinedError => Status::Undefined,
            ErrorKind::OutOfFuel => Status::Steps,
            _ if is_recursion_limit(innermost) => Status::Steps,
            _ => Status::Operation,
        }
    };
    let message = match innermost.detail() {
        Some(detail) if status == Status::Raised => detail.to_string(),
        Some(detail) => format!("{}: {}", innermost.kind(), detail),
        None => innermost.kind().to_string(),
    };
    let line = innermost.line().or(error.line()).unwrap_or(0);
    Failure {
        status,
        message,
        line: u32::try_from(line).unwrap_or(u32::MAX),
    }
}

/// minijinja has no kind of its own for it.
fn is_recursion_limit(error: &Error) -> bool {
    error.kind() == ErrorKind::InvalidOperation
        && error
            .detail()
            .is_some_and(|detail| detail.contains("recursion limit"))
}
