//! Tags and referrers: what a repository has, and taking it out again.

use std::collections::BTreeSet;

use reqwest::Method;
use reqwest::header::{HeaderMap, LINK};
use serde::Deserialize;
use url::Url;

use super::Inner;
use super::call::{Access, Call, protocol};
use super::config::Side;
use super::error::RegistryError;
use crate::oci::Reference;

/// Pages of tags; no repository that people look at has more.
const MOST_PAGES: usize = 10_000;
/// No page of tags is larger.
const PAGE_LIMIT_BYTES: usize = 32 << 20;

#[derive(Deserialize)]
struct TagsJson {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Inner {
    pub(super) async fn list_tags(&self, repository: &Reference) -> Result<Vec<String>, RegistryError> {
        let endpoint = self.endpoint(repository.registry(), Side::Pull);
        let name = repository.repository();
        let what = format!("the list of tags of `{name}`");
        let mut url = endpoint.url(self, &format!("{name}/tags/list")).await?;
        let mut tags = BTreeSet::new();
        for _ in 0..MOST_PAGES {
            let call = Call::new(Method::GET, url.clone(), name, Access::Pull, what.clone());
            let response = self.call(&endpoint, &call, &[200]).await?;
            let (from, next) = (response.url().clone(), next_page(response.url(), response.headers()));
            let (body, whole) = self.limited_body(response, &from, PAGE_LIMIT_BYTES).await?;
            let page: TagsJson = match serde_json::from_slice(&body) {
                Ok(page) if whole => page,
                _ => return Err(protocol(&endpoint, &what, "expected a list of tags".to_owned())),
            };
            tags.extend(page.tags.unwrap_or_default());
            match next.map(|next| endpoint.repair(next)) {
                // Only the registry itself has its tags.
                Some(next) if endpoint.is_home(&next) && next != url => url = next,
                _ => break,
            }
        }
        Ok(tags.into_iter().collect())
    }

    pub(super) async fn delete(&self, reference: &Reference) -> Result<(), RegistryError> {
        let endpoint = self.destination(reference)?;
        let (name, target) = (reference.repository(), reference.tag_or_digest());
        let url = endpoint.url(self, &format!("{name}/manifests/{target}")).await?;
        let what = format!("the deletion of `{target}` in `{name}`");
        let call = Call::new(Method::DELETE, url, name, Access::Delete, what);
        self.call(&endpoint, &call, &[202, 200, 204]).await.map(drop)
    }
}

/// Reads `Link: </v2/x/tags/list?last=b>; rel="next"` (RFC 8288).
pub(super) fn next_page(from: &Url, headers: &HeaderMap) -> Option<Url> {
    let links = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    links.flat_map(|link| link.split(',')).find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let next = parameters
            .split(';')
            .any(|parameter| matches!(parameter.trim().replace('"', "").as_str(), "rel=next"));
        next.then(|| from.join(target).ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found() {
        let from: Url = "https://r.io/v2/x/tags/list?n=2".parse().unwrap();
        let next = |text: &str| {
            let headers = HeaderMap::from_iter([(LINK, text.parse().unwrap())]);
            next_page(&from, &headers).map(|url| url.to_string())
        };
        assert_eq!(
            next(r#"</v2/x/tags/list?last=b&n=2>; rel="next""#).as_deref(),
            Some("https://r.io/v2/x/tags/list?last=b&n=2")
        );
        assert_eq!(
            next(r#"<https://r.io/a>; rel=prev, <?n=3>; rel=next"#).as_deref(),
            Some("https://r.io/v2/x/tags/list?n=3")
        );
        assert_eq!(next(r#"</x>; rel="prev""#), None);
        assert_eq!(next("nonsense"), None);
    }
}
